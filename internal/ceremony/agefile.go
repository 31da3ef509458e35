package ceremony

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"filippo.io/age"
	"filippo.io/age/plugin"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// mostAgeFile bounds a component's file.
const mostAgeFile = 64 << 10

// pluginUI is what age plugins may ask: nothing by itself. A hardware key that
// wants to be touched says so through its own device.
func pluginUI() *plugin.ClientUI {
	return &plugin.ClientUI{
		DisplayMessage: func(string, string) error { return nil },
		RequestValue: func(name, _ string, _ bool) (string, error) {
			return "", fmt.Errorf("the age plugin %s asks for a value: unlock it first", name)
		},
		Confirm: func(string, string, string, string) (bool, error) { return true, nil },
	}
}

// SaveComponent writes a component to a new file that only the recipient can
// open: hexadecimal digits in age. The errors are [ErrExists] and [ErrScript].
func SaveComponent(path, recipient string, value secret.Bytes) error {
	to, err := parseRecipient(recipient)
	if err != nil {
		return fmt.Errorf("%w: recipient: %w", ErrScript, err)
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, to)
	if err != nil {
		return fmt.Errorf("sealing the component to %s: %w", recipient, err)
	}
	text := secret.New(2*value.Len() + 1)
	defer text.Clear()
	hexInto(text.Reveal(), value.Reveal())
	text.Reveal()[text.Len()-1] = '\n'
	if _, err := w.Write(text.Reveal()); err != nil {
		return fmt.Errorf("sealing the component: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("sealing the component: %w", err)
	}
	return WriteNew(path, sealed.Bytes())
}

func hexInto(dst, src []byte) {
	const digits = "0123456789ABCDEF"
	for i, b := range src {
		dst[2*i], dst[2*i+1] = digits[b>>4], digits[b&15]
	}
}

// LoadComponent opens a component's file with the identities of a file, native
// or of plugins. The error is [ErrComponent].
func LoadComponent(path, identities string) (secret.Bytes, error) {
	ids, err := readIdentities(identities)
	if err != nil {
		return secret.Bytes{}, err
	}
	sealed, err := os.ReadFile(path)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: %w", ErrComponent, err)
	}
	if len(sealed) > mostAgeFile {
		return secret.Bytes{}, fmt.Errorf("%w: %s is too large for a component", ErrComponent, path)
	}
	r, err := age.Decrypt(bytes.NewReader(sealed), ids...)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: opening %s: %w", ErrComponent, path, err)
	}
	text := secret.New(mostTyped)
	defer text.Clear()
	n, err := io.ReadFull(r, text.Reveal())
	if err != io.ErrUnexpectedEOF {
		return secret.Bytes{}, fmt.Errorf("%w: %s holds no component", ErrComponent, path)
	}
	if n > 0 && text.Reveal()[n-1] == '\n' {
		n--
	}
	value, err := keys.ParseComponent(text.Reveal()[:n])
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: %s: %w", ErrComponent, path, err)
	}
	return value, nil
}

// readIdentities reads an identity file: one a line, # begins a comment.
func readIdentities(path string) ([]age.Identity, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: reading the identity: %w", ErrComponent, err)
	}
	defer secret.Clear(text)
	var ids []age.Identity
	for row := range bytes.SplitSeq(text, []byte("\n")) {
		row = bytes.TrimSpace(row)
		if len(row) == 0 || row[0] == '#' {
			continue
		}
		if bytes.HasPrefix(row, []byte("AGE-PLUGIN-")) {
			id, err := plugin.NewIdentity(string(row), pluginUI())
			if err != nil {
				return nil, fmt.Errorf("%w: identity of a plugin in %s: %w", ErrComponent, path, err)
			}
			ids = append(ids, id)
			continue
		}
		own, err := age.ParseIdentities(bytes.NewReader(row))
		if err != nil {
			return nil, fmt.Errorf("%w: %s holds no age identity", ErrComponent, path)
		}
		ids = append(ids, own...)
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%w: %s holds no age identity", ErrComponent, path)
	}
	return ids, nil
}

// WriteNew writes a file that must not be there, readable for its owner alone,
// and returns once it is durable. The error is [ErrExists].
func WriteNew(path string, text []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if os.IsExist(err) {
		return fmt.Errorf("%w: %s", ErrExists, path)
	}
	if err != nil {
		return err
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// Absent refuses outputs that are there already, before anybody is asked for
// anything. The error is [ErrExists].
func Absent(paths ...string) error {
	for _, path := range paths {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%w: %s; name another in the script, or move it away", ErrExists, path)
		} else if !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}
