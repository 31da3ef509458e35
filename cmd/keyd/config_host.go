package main

import (
	"encoding/hex"
	"fmt"

	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/profile"
)

// hostSpeech is what an upstream speaks: its profile, nil for ascii87, and what
// stands before the MTI of what is sent to it.
func (u *upstreamConfig) hostSpeech() (*profile.Profile, []byte, error) {
	head, err := hex.DecodeString(u.Head)
	if err != nil {
		return nil, nil, fmt.Errorf("head: %q is not hexadecimal", u.Head)
	}
	if u.Profile == "" || u.Profile == "ascii87" {
		return nil, head, nil
	}
	p, err := profile.Find(u.Profile)
	if err != nil {
		return nil, nil, err
	}
	return p, head, isoswitch.ServesHost(p)
}

// hostSpeech refuses a profile in which keyd cannot speak to a host.
func (k *configCheck) hostSpeech(at string, u *upstreamConfig) {
	_, _, err := u.hostSpeech()
	k.want(err == nil, at+".profile", "%v", err)
}
