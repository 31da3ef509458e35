package hsm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/secret"
)

// start initialises the module. It reports whether this was the first to do
// so: a module that somebody else in the process runs is not finalised by us.
func start(mod cryptoki, cfg Config) (owner bool, err error) {
	var opts []pkcs11.InitializeOption
	if cfg.Reserved != "" {
		opts = append(opts, reserved(cfg.Reserved))
	}
	err = mod.Initialize(opts...)
	if coded(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%w: C_Initialize of %s: %w", ErrModule, cfg.Module, err)
	}
	return true, nil
}

// findToken returns the slot of the one token with the label.
func findToken(mod cryptoki, label string) (uint, pkcs11.TokenInfo, error) {
	slots, err := mod.GetSlotList(true)
	if err != nil {
		return 0, pkcs11.TokenInfo{}, fmt.Errorf("%w: C_GetSlotList: %w", ErrToken, err)
	}
	var (
		matches []uint
		match   pkcs11.TokenInfo
		others  []string
	)
	for _, slot := range slots {
		info, err := mod.GetTokenInfo(slot)
		if err != nil {
			others = append(others, fmt.Sprintf("slot %d (%v)", slot, err))
			continue
		}
		switch {
		case info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0:
			others = append(others, fmt.Sprintf("slot %d (not initialised)", slot))
		case info.Label == label:
			matches, match = append(matches, slot), info
		default:
			others = append(others, fmt.Sprintf("%q", info.Label))
		}
	}
	switch len(matches) {
	case 1:
		return matches[0], match, nil
	case 0:
		found := "no token at all"
		if len(others) > 0 {
			found = strings.Join(others, ", ")
		}
		return 0, match, fmt.Errorf("%w: no token is labelled %q; the module shows %s", ErrToken, label, found)
	}
	return 0, match, fmt.Errorf("%w: %d tokens are labelled %q (slots %v); labels must differ", ErrToken, len(matches), label, matches)
}

// checkPINFlags looks at what the token says about its user PIN before anybody tries one.
func checkPINFlags(info pkcs11.TokenInfo, finalTry bool) error {
	switch flags := info.Flags; {
	case flags&pkcs11.CKF_USER_PIN_INITIALIZED == 0:
		return fmt.Errorf("%w: token %q has no user PIN yet; its security officer must set one", ErrPIN, info.Label)
	case flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return fmt.Errorf("%w: the user PIN of token %q is locked; its security officer must set a new one", ErrPIN, info.Label)
	case flags&pkcs11.CKF_USER_PIN_TO_BE_CHANGED != 0:
		return fmt.Errorf("%w: the user PIN of token %q must be changed before it is used", ErrPIN, info.Label)
	case flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0 && !finalTry:
		return fmt.Errorf("%w: one more wrong PIN locks token %q; check the PIN by hand, then permit the final try", ErrPIN, info.Label)
	}
	return nil
}

// logIn logs the user in once. Being logged in already is success: the login
// belongs to the process.
func logIn(mod cryptoki, s pkcs11.SessionHandle, pin secret.Bytes) error {
	if pin.Len() == 0 {
		return fmt.Errorf("%w: the PIN is empty; state it when the token has none", ErrPIN)
	}
	err := mod.login(s, pkcs11.CKU_USER, pin.Reveal())
	if err == nil || coded(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN) {
		return nil
	}
	if errors.Is(kind(codeOf(err)), ErrPIN) {
		return fmt.Errorf("%w: C_Login: %w; it was tried once and will not be tried again", ErrPIN, err)
	}
	return fmt.Errorf("hsm: C_Login: %w", err)
}

// InitToken makes a token with the label in the first free slot of the module,
// with the PINs of its security officer and its user. A token with the label
// must not exist: [ErrExists]. It is for throw-away tokens and for a first
// start; PINs pass through the wrapper's copies here.
func InitToken(module, label string, soPIN, userPIN secret.Bytes) error {
	cfg := Config{Module: module, TokenLabel: label, NoPIN: true}
	if _, err := cfg.withDefaults(); err != nil {
		return err
	}
	mod, err := load(module)
	if err != nil {
		return err
	}
	owner, err := start(mod, cfg)
	if err != nil {
		return err
	}
	if owner {
		defer func() { _ = mod.Finalize() }()
	}
	slot, err := freeSlot(mod, label)
	if err != nil {
		return err
	}
	if err := mod.InitToken(slot, string(soPIN.Reveal()), label); err != nil {
		return fmt.Errorf("hsm: C_InitToken in slot %d: %w", slot, err)
	}
	if slot, _, err = findToken(mod, label); err != nil {
		return err
	}
	return initPIN(mod, slot, soPIN, userPIN)
}

// freeSlot returns a slot whose token is not initialised.
func freeSlot(mod cryptoki, label string) (uint, error) {
	slots, err := mod.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("%w: C_GetSlotList: %w", ErrToken, err)
	}
	free, found := uint(0), false
	for _, slot := range slots {
		info, err := mod.GetTokenInfo(slot)
		if err != nil {
			continue
		}
		initialised := info.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0
		if initialised && info.Label == label {
			return 0, fmt.Errorf("%w: a token labelled %q is there", ErrExists, label)
		}
		if !initialised && !found {
			free, found = slot, true
		}
	}
	if !found {
		return 0, fmt.Errorf("%w: the module has no free slot", ErrToken)
	}
	return free, nil
}

func initPIN(mod cryptoki, slot uint, soPIN, userPIN secret.Bytes) error {
	s, err := mod.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return fmt.Errorf("hsm: C_OpenSession: %w", err)
	}
	defer func() { _ = mod.CloseSession(s) }()
	if err := mod.login(s, pkcs11.CKU_SO, soPIN.Reveal()); err != nil {
		return fmt.Errorf("%w: C_Login of the security officer: %w", ErrPIN, err)
	}
	if err := mod.InitPIN(s, string(userPIN.Reveal())); err != nil {
		return fmt.Errorf("%w: C_InitPIN: %w", ErrPIN, err)
	}
	return nil
}
