package api

import (
	"strings"
	"testing"

	"keyd.dev/keyd/internal/custody"
)

const localARN = "arn:aws:payment-cryptography:xx-keyd-1:000000000000:"

func TestRef(t *testing.T) {
	names, err := newNamer("", "")
	if err != nil {
		t.Fatal(err)
	}
	id := "6g1dpp3ele1d02exhhsxvp74f7g7onlp"
	foreign := "arn:aws:payment-cryptography:eu-central-1:000000000000:key/" + id
	for _, c := range []struct {
		name, text string
		want       custody.Ref
		ok         bool
	}{
		{"alias", "alias/zpk-a", custody.Ref{Alias: "alias/zpk-a"}, true},
		{"alias with every character", "alias/aZ0/_-", custody.Ref{Alias: "alias/aZ0/_-"}, true},
		{"alias of one character", "alias/x", custody.Ref{Alias: "alias/x"}, true},
		{"alias of 256", "alias/" + strings.Repeat("a", 250), custody.Ref{Alias: "alias/" + strings.Repeat("a", 250)}, true},
		{"key ARN", localARN + "key/" + id, custody.Ref{ID: "6g1dpp3ele1d02exhhsxvp74f7g7onlp"}, true},
		{"alias ARN", localARN + "alias/zpk-a", custody.Ref{Alias: "alias/zpk-a"}, true},
		{"key ARN of another region names no key here", foreign, custody.Ref{ID: "arn:aws:payment-cryptography:eu-central-1:000000000000:key/6g1dpp3ele1d02exhhsxvp74f7g7onlp"}, true},
		{"alias ARN of another account names no alias here", "arn:aws:payment-cryptography:xx-keyd-1:000000000001:alias/zpk-a", custody.Ref{ID: "arn:aws:payment-cryptography:xx-keyd-1:000000000001:alias/zpk-a"}, true},

		{"alias of nothing", "alias/", custody.Ref{}, false},
		{"alias of 257", "alias/" + strings.Repeat("a", 251), custody.Ref{}, false},
		{"alias with a space", "alias/a b", custody.Ref{}, false},
		{"alias with a dot", "alias/a.b", custody.Ref{}, false},
		{"alias in capitals", "Alias/zpk", custody.Ref{}, false},
		{"bare id", id, custody.Ref{}, false},
		{"bare name", "zpk-a", custody.Ref{}, false},
		{"nothing", "", custody.Ref{}, false},
		{"key ARN with a short id", localARN + "key/abc", custody.Ref{}, false},
		{"key ARN with a long id", localARN + "key/" + strings.Repeat("a", 65), custody.Ref{}, false},
		{"key ARN with another character", localARN + "key/" + id + "-", custody.Ref{}, false},
		{"key ARN below a key", localARN + "key/" + id + "/x", custody.Ref{}, false},
		{"other resource", localARN + "secret/" + id, custody.Ref{}, false},
		{"other partition", strings.Replace(localARN, "aws", "aws-cn", 1) + "key/" + id, custody.Ref{}, false},
		{"other service", strings.Replace(localARN, "payment-cryptography", "kms", 1) + "key/" + id, custody.Ref{}, false},
		{"malformed region", strings.Replace(localARN, "xx-keyd-1", "keyd", 1) + "key/" + id, custody.Ref{}, false},
		{"malformed account", strings.Replace(localARN, "000000000000", "1", 1) + "key/" + id, custody.Ref{}, false},
		{"ARN without a resource", localARN, custody.Ref{}, false},
		{"ARN without an account", arnPrefix + "xx-keyd-1", custody.Ref{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := names.ref([]byte(c.text))
			if got != c.want || ok != c.ok {
				t.Errorf("got %+v, %v; want %+v, %v", got, ok, c.want, c.ok)
			}
		})
	}
}

func TestKeyARNIsNoAlias(t *testing.T) {
	names, err := newNamer("", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"alias/zpk-a", localARN + "alias/zpk-a", "x"} {
		if id, ok := names.keyARN([]byte(text)); ok {
			t.Errorf("%s taken for the ARN of key %q", text, id)
		}
	}
	if id, ok := names.keyARN([]byte(localARN + "key/6g1dpp3ele1d02exhhsxvp74f7g7onlp")); !ok || id != "6g1dpp3ele1d02exhhsxvp74f7g7onlp" {
		t.Errorf("got %q, %v", id, ok)
	}
}

func TestNewNamer(t *testing.T) {
	for _, c := range []struct {
		name, region, account string
		ok                    bool
	}{
		{"defaults", "", "", true},
		{"own", "de-bank-12", "123456789012", true},
		{"one part", "keyd", "", false},
		{"capitals", "xx-Keyd-1", "", false},
		{"no number", "xx-keyd-", "", false},
		{"letters for the number", "xx-keyd-a", "", false},
		{"long word", "xx-" + strings.Repeat("a", 17) + "-1", "", false},
		{"three letters", "xxx-keyd-1", "", false},
		{"colon", "xx-keyd-1:", "", false},
		{"eleven digits", "", "12345678901", false},
		{"letters", "", "12345678901a", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := newNamer(c.region, c.account); (err == nil) != c.ok {
				t.Errorf("got error %v", err)
			}
		})
	}
}

func FuzzRef(f *testing.F) {
	f.Add("alias/zpk-a")
	f.Add(localARN + "key/6g1dpp3ele1d02exhhsxvp74f7g7onlp")
	f.Add("arn:aws:payment-cryptography:eu-central-1:000000000000:key/6g1dpp3ele1d02exhhsxvp74f7g7onlp")
	names, err := newNamer("", "")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ref, ok := names.ref([]byte(text))
		if !ok {
			if ref != (custody.Ref{}) {
				t.Errorf("refused, with a name")
			}
			return
		}
		again := ref.Alias
		if again == "" {
			again = string(names.appendARN(nil, ref.ID))
		}
		if _, local := cut([]byte(text), localARN); local || ref.Alias != "" {
			if same, ok := names.ref([]byte(again)); !ok || same != ref {
				t.Errorf("the name does not read back to itself")
			}
		}
	})
}
