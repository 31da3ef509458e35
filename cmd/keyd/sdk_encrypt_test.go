//lint:file-ignore SA1019 there is no other official Go client of the data plane on the module proxy

package main

import (
	"strings"

	"github.com/aws/aws-sdk-go/aws"
	data "github.com/aws/aws-sdk-go/service/paymentcryptographydata"
)

func symmetric(mode, vector string) *data.SymmetricEncryptionAttributes {
	a := &data.SymmetricEncryptionAttributes{Mode: &mode}
	if vector != "" {
		a.InitializationVector = &vector
	}
	return a
}

// symmetric uses static data keys, and names them in every form that a path can
// hold. The values are of NIST SP 800-38A, appendix F.
func (s *sdkData) symmetric() {
	const (
		plain  = "6BC1BEE22E409F96E93D7E117393172A"
		vector = "000102030405060708090A0B0C0D0E0F"
	)
	arn := s.arn["alias/sdk/data/of-a"]
	names := []string{"alias/sdk/data-aes", "alias/sdk/data/of-a", arn, arn[:strings.LastIndex(arn, ":")+1] + "alias/sdk/data/of-a"}
	for _, c := range []struct{ mode, vector, cipher string }{
		{"ECB", "", "3AD77BB40D7A3660A89ECAF32466EF97"},
		{"CBC", vector, "7649ABAC8119B246CEE98E9B12E9197D"},
	} {
		for _, name := range names {
			with := &data.EncryptionDecryptionAttributes{Symmetric: symmetric(c.mode, c.vector)}
			out, err := s.c.EncryptData(&data.EncryptDataInput{KeyIdentifier: &name, PlainText: aws.String(plain), EncryptionAttributes: with})
			if err != nil || *out.CipherText != c.cipher {
				s.Errorf("%s under %s: %v", c.mode, name, err)
				continue
			}
			back, err := s.c.DecryptData(&data.DecryptDataInput{KeyIdentifier: &name, CipherText: out.CipherText, DecryptionAttributes: with})
			if err != nil || *back.PlainText != plain || *back.KeyArn != *out.KeyArn {
				s.Errorf("%s back under %s: %v", c.mode, name, err)
			}
		}
	}
	for _, name := range names {
		out, err := s.c.ReEncryptData(&data.ReEncryptDataInput{
			IncomingKeyIdentifier: &name, IncomingEncryptionAttributes: &data.ReEncryptionAttributes{Symmetric: symmetric("CBC", vector)},
			OutgoingKeyIdentifier: aws.String("alias/sdk/data-aes"), OutgoingEncryptionAttributes: &data.ReEncryptionAttributes{Symmetric: symmetric("ECB", "")},
			CipherText: aws.String("7649ABAC8119B246CEE98E9B12E9197D"),
		})
		if err != nil || *out.CipherText != "3AD77BB40D7A3660A89ECAF32466EF97" || *out.KeyArn != s.arn["alias/sdk/data-aes"] {
			s.Errorf("ReEncryptData under %s: %v", name, err)
		}
	}
}

// dukptData uses the data keys of TDES and AES base derivation keys.
func (s *sdkData) dukptData() {
	plain := strings.Repeat("00112233445566778899AABBCCDDEEFF", 3)
	for key, ksn := range map[string]string{"alias/dev/bdk-tdes": "FFFF9876543210E00001", "alias/dev/bdk-aes": "123456789012345600000001"} {
		made := make(map[string]bool)
		for _, variant := range []string{"REQUEST", "RESPONSE"} {
			with := &data.DukptEncryptionAttributes{KeySerialNumber: &ksn, DukptKeyVariant: &variant, Mode: aws.String("CBC")}
			out, err := s.c.EncryptData(&data.EncryptDataInput{
				KeyIdentifier: &key, PlainText: &plain, EncryptionAttributes: &data.EncryptionDecryptionAttributes{Dukpt: with},
			})
			if err != nil {
				s.Errorf("%s %s: %v", key, variant, err)
				continue
			}
			made[*out.CipherText] = true
			back, err := s.c.DecryptData(&data.DecryptDataInput{
				KeyIdentifier: &key, CipherText: out.CipherText, DecryptionAttributes: &data.EncryptionDecryptionAttributes{Dukpt: with},
			})
			if err != nil || *back.PlainText != plain {
				s.Errorf("%s %s back: %v", key, variant, err)
			}
			moved, err := s.c.ReEncryptData(&data.ReEncryptDataInput{
				IncomingKeyIdentifier: &key, IncomingEncryptionAttributes: &data.ReEncryptionAttributes{Dukpt: with}, CipherText: out.CipherText,
				OutgoingKeyIdentifier: aws.String("alias/sdk/data-3des"), OutgoingEncryptionAttributes: &data.ReEncryptionAttributes{Symmetric: symmetric("CBC", "0011223344556677")},
			})
			if err != nil {
				s.Errorf("%s %s to a static key: %v", key, variant, err)
				continue
			}
			back, err = s.c.DecryptData(&data.DecryptDataInput{
				KeyIdentifier: aws.String("alias/sdk/data-3des"), CipherText: moved.CipherText,
				DecryptionAttributes: &data.EncryptionDecryptionAttributes{Symmetric: symmetric("CBC", "0011223344556677")},
			})
			if err != nil || *back.PlainText != plain {
				s.Errorf("%s %s out of the static key: %v", key, variant, err)
			}
		}
		if len(made) != 2 {
			s.Errorf("%s: request and response keys are the same", key)
		}
	}
}

// dynamic uses keys that travel with the request, under a key-encryption key.
func (s *sdkData) dynamic() {
	const pan = "4012345678909"
	travels := func(block string) *data.WrappedKey {
		return &data.WrappedKey{WrappedKeyMaterial: &data.WrappedKeyMaterial{Tr31KeyBlock: &block}}
	}
	out, err := s.c.TranslatePinData(&data.TranslatePinDataInput{
		IncomingKeyIdentifier: aws.String("alias/dev/kek"), IncomingWrappedKey: travels(blockZPK),
		IncomingTranslationAttributes: format(0, pan), EncryptedPinBlock: aws.String("DCBAC0ABA559F78B"),
		OutgoingKeyIdentifier: aws.String("alias/dev/bdk-tdes"), OutgoingDukptAttributes: dukptPIN("FFFF9876543210E00001"),
		OutgoingTranslationAttributes: format(0, pan),
	})
	if err != nil || *out.PinBlock != "1B9C1845EB993A7A" {
		s.Errorf("TranslatePinData: %v", err)
	}
	made, err := s.c.EncryptData(&data.EncryptDataInput{
		KeyIdentifier: aws.String("alias/dev/kek"), WrappedKey: travels(blockData), PlainText: aws.String("6BC1BEE22E409F96E93D7E117393172A"),
		EncryptionAttributes: &data.EncryptionDecryptionAttributes{Symmetric: symmetric("ECB", "")},
	})
	if err != nil || *made.CipherText != "3AD77BB40D7A3660A89ECAF32466EF97" {
		s.Errorf("EncryptData: %v", err)
	}
}

// guarded uses a base derivation key whose counters are guarded: each is taken
// once for one kind of use, and none below the highest.
func (s *sdkData) guarded() {
	const key, message = "alias/sdk/bdk-guarded", "00112233"
	with := func(counter string) *data.MacAttributes {
		return &data.MacAttributes{DukptCmac: &data.MacAlgorithmDukpt{KeySerialNumber: aws.String("1234567890123456" + counter), DukptKeyVariant: aws.String("REQUEST")}}
	}
	verify := func(counter string) error {
		made, err := s.c.GenerateMac(&data.GenerateMacInput{KeyIdentifier: aws.String(key), MessageData: aws.String(message), GenerationAttributes: with(counter)})
		if err != nil {
			s.Fatal(err)
		}
		_, err = s.c.VerifyMac(&data.VerifyMacInput{KeyIdentifier: aws.String(key), MessageData: aws.String(message), Mac: made.Mac, VerificationAttributes: with(counter)})
		return err
	}
	for _, c := range []struct {
		counter string
		taken   bool
	}{{"00000002", true}, {"00000002", false}, {"00000001", false}, {"00000004", true}} {
		err := verify(c.counter)
		invalid, refused := err.(*data.ValidationException)
		if c.taken && err != nil || !c.taken && (!refused || !strings.Contains(invalid.Message(), "key serial number already used")) {
			s.Errorf("counter %s: %v", c.counter, err)
		}
	}
}

// large values go as far as keyd's own limits, beyond those of the model: the
// SDK does not check maximum lengths.
func (s *sdkData) large() {
	mac := s.mac("alias/sdk/tak-cmac", strings.Repeat("5A", 65_536), &data.MacAttributes{Algorithm: aws.String("CMAC")}, nil)
	if len(mac) != 32 {
		s.Error("no MAC of 65,536 bytes")
	}
	_, err := s.c.GenerateMac(&data.GenerateMacInput{
		KeyIdentifier: aws.String("alias/sdk/tak-cmac"), MessageData: aws.String(strings.Repeat("5A", 65_537)),
		GenerationAttributes: &data.MacAttributes{Algorithm: aws.String("CMAC")},
	})
	if invalid, ok := err.(*data.ValidationException); !ok || len(invalid.FieldList) != 1 || *invalid.FieldList[0].Path != "MessageData" {
		s.Errorf("65,537 bytes: %v", err)
	}
	if mac := s.mac("alias/sdk/tak-cmac", "00", &data.MacAttributes{Algorithm: aws.String("CMAC")}, aws.Int64(4)); len(mac) != 8 {
		s.Error("no MAC of one byte")
	}
	plain := strings.Repeat("A5", 2048)
	with := &data.EncryptionDecryptionAttributes{Symmetric: symmetric("CBC", "")}
	out, err := s.c.EncryptData(&data.EncryptDataInput{KeyIdentifier: aws.String("alias/sdk/data-aes"), PlainText: &plain, EncryptionAttributes: with})
	if err != nil {
		s.Fatal(err)
	}
	back, err := s.c.DecryptData(&data.DecryptDataInput{KeyIdentifier: aws.String("alias/sdk/data-aes"), CipherText: out.CipherText, DecryptionAttributes: with})
	if err != nil || *back.PlainText != plain {
		s.Errorf("2,048 bytes of data: %v", err)
	}
}
