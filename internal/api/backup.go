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
	}{made.File, made.Bytes, strings.ToUpper(hex.EncodeToString(made.SHA256[:])), made.LMK, made.At, made.Rows})
	c.out = append(c.out, text...)
	return err
}
