package main

import (
	"os"

	"filippo.io/age"
	"filippo.io/age/plugin"
)

// safePlugin is the program age-plugin-safe: an age plugin in the place of a
// hardware key. What it keeps is an ordinary age key, told in the plugin's form.
func safePlugin() {
	p, err := plugin.New("safe")
	if err != nil {
		os.Exit(1)
	}
	p.HandleRecipient(func(data []byte) (age.Recipient, error) { return age.ParseX25519Recipient(string(data)) })
	p.HandleIdentity(func(data []byte) (age.Identity, error) { return age.ParseX25519Identity(string(data)) })
	os.Exit(p.Main())
}
