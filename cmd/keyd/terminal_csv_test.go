package main

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// readAll reads a file of terminals to its end.
func readAll(text string) (rows []terminalRow, wrong []string, err error) {
	file, err := openTerminals(strings.NewReader(text))
	if err != nil {
		return nil, nil, err
	}
	for {
		row, err := file.next()
		var bad *rowError
		switch {
		case errors.Is(err, io.EOF):
			return rows, wrong, nil
		case errors.As(err, &bad):
			wrong = append(wrong, bad.Error())
		case err != nil:
			return rows, wrong, err
		default:
			rows = append(rows, row)
		}
	}
}

const wholeHeader = "tid,mid,scheme,bdk,ksn,mac_bytes,profile,tmk,kek,working_keys,max_amount\n"

func TestTerminalFile(t *testing.T) {
	rows, wrong, err := readAll("\xEF\xBB\xBF" + wholeHeader +
		"T0000001,M00000000000001,tdes-dukpt,alias/bdk,ffff9876543210e00001,4,,,,,\r\n" +
		"\n" + // an empty line is none
		"T0000002,M00000000000001,tmk,,,,unionpay,B0096K0TB00E0000,alias/kek,TPK+TAK+TDK,123456789012\n" +
		`"T000""003","M00000000000001","tmk",,,,aes,generate,,,` + "\n")
	if err != nil || len(wrong) > 0 {
		t.Fatalf("%q, %v", wrong, err)
	}
	want := []terminalRow{
		{2, newTerminal{TID: "T0000001", MID: "M00000000000001", Scheme: "tdes-dukpt", BDK: "alias/bdk", KSN: "ffff9876543210e00001", MACBytes: 4}},
		{4, newTerminal{TID: "T0000002", MID: "M00000000000001", Scheme: "tmk", Profile: "unionpay", Most: 123456789012,
			MasterKey: &newMaster{Tr31KeyBlock: &keyBlock{"B0096K0TB00E0000", "alias/kek"}}, WorkingKeys: []string{"TPK", "TAK", "TDK"}}},
		{5, newTerminal{TID: `T000"003`, MID: "M00000000000001", Scheme: "tmk", Profile: "aes", MasterKey: &newMaster{Generate: true}}},
	}
	if diff := cmp.Diff(want, rows, cmp.AllowUnexported(terminalRow{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestTerminalFileRefused: an error names the line, the column, and what to do.
func TestTerminalFileRefused(t *testing.T) {
	line := func(fields string) string { return wholeHeader + fields + "\n" }
	for _, test := range []struct{ name, text, want string }{
		{"fields", line("T0000001,M00000000000001"), "line 2: 2 fields, and the header has 11 columns"},
		{"quotes", line(`T0000001,"M0000`), "line 2: not CSV"},
		{"TID", line("T1,M00000000000001,tmk,,,,aes,generate,,,"), "line 2, column tid: a TID has 8 characters, this one 2"},
		{"MID", line("T0000001,M1,tmk,,,,aes,generate,,,"), "line 2, column mid: a MID has 15 characters, this one 2"},
		{"scheme", line("T0000001,M00000000000001,dukpt,,,,,,,,"), "line 2, column scheme: want tdes-dukpt, aes-dukpt or tmk"},
		{"no printable text", line("T0000001,M00000000000001,tmk,,,,\x01,generate,,,"), "column profile: want at most 1024 printable"},
		{"KSN", line("T0000001,M00000000000001,aes-dukpt,alias/bdk,FFFF9876543210E00001,,,,,,"), "column ksn: want 24 hexadecimal digits"},
		{"BDK", line("T0000001,M00000000000001,tdes-dukpt,bdk,FFFF9876543210E00001,,,,,,"), "column bdk: want the alias"},
		{"MAC bytes", line("T0000001,M00000000000001,tdes-dukpt,alias/bdk,FFFF9876543210E00001,5,,,,,"), "column mac_bytes: want 8 or 4"},
		{"profile with DUKPT", line("T0000001,M00000000000001,tdes-dukpt,alias/bdk,FFFF9876543210E00001,8,aes,,,,"), "column profile: is for scheme tmk"},
		{"BDK with tmk", line("T0000001,M00000000000001,tmk,alias/bdk,,,aes,generate,,,"), "column bdk: is for DUKPT"},
		{"no profile", line("T0000001,M00000000000001,tmk,,,,,generate,,,"), "column profile: is needed"},
		{"no master key", line("T0000001,M00000000000001,tmk,,,,aes,,,,"), "column tmk: a terminal of scheme tmk needs a master key"},
		{"block without KEK", line("T0000001,M00000000000001,tmk,,,,aes,B0096,,,"), "column tmk: a key block needs its key-encryption key"},
		{"KEK without block", line("T0000001,M00000000000001,tmk,,,,aes,generate,alias/kek,,"), "column tmk: a key-encryption key is for a key block"},
		{"working keys", line("T0000001,M00000000000001,tmk,,,,aes,generate,,TPK,"), "column working_keys: want TPK+TAK"},
		{"amount", line("T0000001,M00000000000001,tmk,,,,aes,generate,,,12.50"), "column max_amount: want an amount in minor units"},
		{"negative amount", line("T0000001,M00000000000001,tmk,,,,aes,generate,,,-1"), "column max_amount: want an amount in minor units"},
		{"empty file", "", "the file is empty"},
		{"semicolons", "tid;mid;scheme\n", "by commas, not by semicolons"},
		{"unknown column", "tid,mid,scheme,Colour\n", `no column is called "Colour"`},
		{"column twice", "tid,mid,scheme,tid\n", "two columns are called tid"},
		{"column missing", "tid,mid\n", "the column scheme is missing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			rows, wrong, err := readAll(test.text)
			got := strings.Join(wrong, "\n")
			if err != nil {
				got = err.Error()
			}
			if len(rows) > 0 || !strings.Contains(got, test.want) {
				t.Errorf("%d rows, %q; want %q", len(rows), got, test.want)
			}
		})
	}
}

// FuzzTerminalFile: whatever the file holds, a row that comes out of it has the
// form that the daemon asks for, and no error repeats more than a little of it.
func FuzzTerminalFile(f *testing.F) {
	f.Add(wholeHeader + "T0000001,M00000000000001,tmk,,,,unionpay,generate,,TPK+TAK,100\n")
	f.Add(wholeHeader + "T0000001,M00000000000001,tdes-dukpt,alias/bdk,FFFF9876543210E00001,8,,,,,\n")
	f.Add("tid,mid,scheme\n\"\n")
	f.Add("\xEF\xBB\xBFtid;mid")
	f.Fuzz(func(t *testing.T, text string) {
		rows, wrong, err := readAll(text)
		for _, row := range rows {
			e := row.entry
			if len(e.TID) != 8 || len(e.MID) != 15 || row.line < 2 || e.Most < 0 || !plainASCII(e.TID+e.MID+e.Profile+e.BDK) ||
				(e.Scheme == "tmk") != (e.MasterKey != nil) || (e.Scheme == "tmk") == (e.KSN != "") {
				t.Errorf("line %d: %+v", row.line, e)
			}
		}
		for _, line := range append(wrong, errorText(err)) {
			if len(line) > 400 {
				t.Errorf("an error of %d characters", len(line))
			}
		}
	})
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
