package iso8583

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadFrame(t *testing.T) {
	long := strings.Repeat("x", MaxFrame)
	tests := []struct {
		name string
		in   string
		want []string
		end  error
	}{
		{"W-01 nothing", "", nil, io.EOF},
		{"W-01 one", "\x00\x03abc", []string{"abc"}, io.EOF},
		{"W-01 several in a segment", "\x00\x03abc\x00\x01d\x00\x02ef", []string{"abc", "d", "ef"}, io.EOF},
		{"W-01 the longest", "\x10\x00" + long, []string{long}, io.EOF},
		{"W-01 one byte too long", "\x10\x01" + long + "x", nil, ErrFrameTooLong},
		{"W-01 the greatest length", "\xFF\xFF", nil, ErrFrameTooLong},
		{"W-01 ASCII instead of a length", "0200", nil, ErrFrameTooLong},
		{"W-18 length 0", "\x00\x01a\x00\x00\x00\x01b", []string{"a"}, ErrFrameEmpty},
		{"W-01 cut in the length", "\x00", nil, io.ErrUnexpectedEOF},
		{"W-01 cut behind the length", "\x00\x03", nil, io.ErrUnexpectedEOF},
		{"W-01 cut in the message", "\x00\x03ab", nil, io.ErrUnexpectedEOF},
	}
	readers := map[string]func(io.Reader) io.Reader{
		"whole":             func(r io.Reader) io.Reader { return r },
		"a byte at a time":  iotest.OneByteReader,
		"data with the EOF": iotest.DataErrReader,
	}
	for _, tt := range tests {
		for how, reader := range readers {
			t.Run(tt.name+", "+how, func(t *testing.T) {
				r := reader(strings.NewReader(tt.in))
				for i, want := range tt.want {
					got, err := ReadFrame(r)
					if err != nil || string(got) != want {
						t.Fatalf("frame %d: %d bytes, %v", i, len(got), err)
					}
				}
				got, err := ReadFrame(r)
				if !errors.Is(err, tt.end) || got != nil {
					t.Errorf("at the end: %d bytes, %v, want %v", len(got), err, tt.end)
				}
			})
		}
	}
	t.Run("the reader's error is kept", func(t *testing.T) {
		broken := errors.New("broken line")
		for _, in := range []string{"", "\x00", "\x00\x03a"} {
			_, err := ReadFrame(io.MultiReader(strings.NewReader(in), iotest.ErrReader(broken)))
			if !errors.Is(err, broken) {
				t.Errorf("behind %d bytes: %v", len(in), err)
			}
		}
	})
}

func TestAppendFrame(t *testing.T) {
	got, err := AppendFrame([]byte("before"), []byte("abc"))
	if err != nil || string(got) != "before\x00\x03abc" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, tt := range []struct {
		n    int
		want error
	}{{0, ErrFrameEmpty}, {1, nil}, {MaxFrame, nil}, {MaxFrame + 1, ErrFrameTooLong}, {1 << 17, ErrFrameTooLong}} {
		got, err := AppendFrame(nil, make([]byte, tt.n))
		if !errors.Is(err, tt.want) || tt.want != nil && got != nil {
			t.Errorf("%d bytes: %d bytes, %v, want %v", tt.n, len(got), err, tt.want)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x00\x03abc\x00\x01d"))
	f.Add([]byte("\x10\x01"))
	f.Add([]byte("\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		var back []byte
		for {
			msg, err := ReadFrame(r)
			if err != nil {
				break
			}
			if back, err = AppendFrame(back, msg); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(in, back) {
			t.Error("the frames do not write back as they came")
		}
	})
}
