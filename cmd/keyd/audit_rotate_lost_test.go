package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/hsm"
)

// lostHalves is a program for scripts: it destroys objects of the token of a
// development daemon that has stopped, by their label: of each label the private
// half, and with "both" in front the public half too.
func lostHalves() {
	classes, labels := []uint{pkcs11.CKO_PRIVATE_KEY}, os.Args[2:]
	if labels[0] == "both" {
		classes, labels = append(classes, pkcs11.CKO_PUBLIC_KEY), labels[1:]
	}
	if err := loseObjects(os.Args[1], classes, labels); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func loseObjects(dir string, classes []uint, labels []string) error {
	cfg, err := loadConfig(filepath.Join(dir, "keyd.toml"))
	if err != nil {
		return err
	}
	if err := setEnvironment(cfg.Token.Environment); err != nil {
		return err
	}
	pin, err := pinOnce(context.Background(), &cfg.Token, nil)()
	if err != nil {
		return err
	}
	module := pkcs11.New(cfg.Token.Module)
	if module == nil {
		return errors.New("the module cannot be loaded")
	}
	defer module.Destroy()
	if err := module.Initialize(); err != nil {
		return err
	}
	slots, err := module.GetSlotList(true)
	if err != nil {
		return err
	}
	for _, slot := range slots {
		info, err := module.GetTokenInfo(slot)
		if err != nil {
			return err
		}
		if info.Label != cfg.Token.Label {
			continue
		}
		s, err := module.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return err
		}
		if err := module.Login(s, pkcs11.CKU_USER, string(pin.Reveal())); err != nil {
			return err
		}
		for _, label := range labels {
			for _, class := range classes {
				if err := loseObject(module, s, class, label); err != nil {
					return fmt.Errorf("%s: %w", label, err)
				}
			}
		}
	}
	return module.Finalize()
}

// loseObject destroys the one object of a class and a label.
func loseObject(module *pkcs11.Ctx, s pkcs11.SessionHandle, class uint, label string) error {
	match := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)}
	if err := module.FindObjectsInit(s, match); err != nil {
		return err
	}
	found, _, err := module.FindObjects(s, 2)
	if err = errors.Join(err, module.FindObjectsFinal(s)); err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("%d objects", len(found))
	}
	return module.DestroyObject(s, found[0])
}

// cutOff is a program for scripts: it goes on under a new key in the place of the
// lost one that a file holds, and ends before it is recorded who ordered that.
func cutOff() {
	if err := goOnAlone(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func goOnAlone(dir, file string) error {
	cfg, err := loadConfig(filepath.Join(dir, "keyd.toml"))
	if err != nil {
		return err
	}
	reader, err := openLog(cfg.Audit.Dir)
	if err != nil {
		return err
	}
	origin, err := secOrigin(reader)
	if err != nil {
		return err
	}
	lost, err := lostKeyOf(file, origin)
	if err != nil {
		return err
	}
	token, err := openToken(context.Background(), cfg, newLogger(os.Stderr, "error"), newMetrics())
	if err != nil {
		return err
	}
	defer token.Close()
	signer, err := hsm.NewManager(token).ReplaceLog(context.Background())
	if err != nil {
		return err
	}
	log, err := audit.Open(cfg.Audit.Dir, signer, audit.Options{
		Site: cfg.Audit.Site, Node: cfg.Audit.Node, SegmentSize: int64(cfg.Audit.SegmentMB) << 20, Accept: []crypto.PublicKey{lost},
	})
	if err != nil {
		return err
	}
	return log.Close(context.Background())
}
