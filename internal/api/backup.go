package api

import (
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"
)

// backup is keyd's own operation Backup.
func (c *call) backup() error {
	if err := c.check(); err != nil {
		return err
	}
	made, err := c.custody.MakeBackup(c.ctx, c.caller, c.id)
	if err != nil {
		return err
	}
	text, err := json.Marshal(struct {
		File   string
		Bytes  int64
		SHA256 string
		LMK    uint32
		Made   time.Time
		Rows   map[string]int

		Transit    string `json:",omitempty"`
		Custodians int    `json:",omitempty"`
	}{made.File, made.Bytes, strings.ToUpper(hex.EncodeToString(made.SHA256[:])), made.LMK, made.At, made.Rows, made.Transit, made.Custodians})
	c.out = append(c.out, text...)
	return err
}
