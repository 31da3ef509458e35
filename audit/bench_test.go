package audit

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

func testOptions() Options {
	return Options{Site: "example", Node: "n1", Build: "1.0.0+g1a2b3c4d5e6f", SegmentSize: minSegmentSize}
}

func benchRecord() Record {
	return Record{
		Action: PINTranslate, Outcome: OutcomeOK, Corr: "sw-a.184467", Actor: Actor{ID: "switch-a", Kind: ActorSwitch},
		Src:  Source{Addr: "10.1.2.3:53122", Conn: "c-8841"},
		Keys: []Key{{Role: KeyRoleOut, ID: "zpk/visa", Version: 4, KCV: "9F2A1104C7"}, {Role: KeyRoleBDK, ID: "bdk/acq-1", Version: 2, KCV: "08D7B4"}},
		KSN:  "FFFF9876543210E00001", Mech: "CKM_DES3_ECB", HSM: HSM{Serial: "A1B2C3D4"}, Custody: CustodyProcess, Duration: 812 * time.Microsecond,
		PIN: PIN{PINISO0, PINISO4}, PAN: PAN{truncated: "411111******1111", tok: "k1:gv0DR9eyf1tnkhAjMPpPKQ"},
	}
}

// BenchmarkAuditAppend is L-201 and L-202.
func BenchmarkAuditAppend(b *testing.B) {
	for _, producers := range []int{1, 64} {
		b.Run(fmt.Sprintf("producers=%d", producers), func(b *testing.B) {
			o, syncs := testOptions(), 0
			o.Synced = func(time.Duration, int) { syncs++ }
			l, err := Open(b.TempDir(), testSigner(), o)
			if err != nil {
				b.Fatal(err)
			}
			latencies := make([][]time.Duration, producers)
			b.ResetTimer()
			start := time.Now()
			var group sync.WaitGroup
			for p := range producers {
				group.Go(func() {
					for range b.N / producers {
						t, err := l.Reserve(context.Background(), Ops, 1)
						if err != nil {
							b.Error(err)
							return
						}
						begin := time.Now()
						_, err = t.Append(benchRecord())
						latencies[p] = append(latencies[p], time.Since(begin))
						t.Release()
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			group.Wait()
			b.StopTimer()
			all := slices.Sorted(slices.Values(slices.Concat(latencies...)))
			if len(all) > 0 {
				b.ReportMetric(float64(len(all))/time.Since(start).Seconds(), "records/s")
				b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
				b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
				b.ReportMetric(float64(all[len(all)*999/1000].Microseconds()), "p99.9-µs")
			}
			if err := l.Close(context.Background()); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(len(all))/float64(max(syncs, 1)), "records/sync")
		})
	}
}

// BenchmarkAuditEncode is L-207.
func BenchmarkAuditEncode(b *testing.B) {
	o, err := testOptions().withDefaults()
	if err != nil {
		b.Fatal(err)
	}
	l := &Log{o: o, started: time.Now()}
	l.identify()
	b.ReportAllocs()
	n := 0
	for range b.N {
		r := benchRecord()
		d := l.describe(&r, Ops)
		n = len(d.pre) + len(d.suf)
		d.free()
	}
	b.ReportMetric(float64(n), "bytes/record")
}

// BenchmarkAuditVerify is L-208.
func BenchmarkAuditVerify(b *testing.B) {
	const records = 200_000
	dir := b.TempDir()
	l, err := Open(dir, testSigner(), testOptions())
	if err != nil {
		b.Fatal(err)
	}
	var group sync.WaitGroup
	for range 64 {
		group.Go(func() {
			for range records / 64 / 25 {
				t, err := l.Reserve(context.Background(), Ops, 25)
				if err != nil {
					b.Error(err)
					return
				}
				_, err = t.Append(slices.Repeat([]Record{benchRecord()}, 25)...)
				t.Release()
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	if err := l.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	start := time.Now()
	n := uint64(0)
	for range b.N {
		report, err := Verify(dir, []string{testVkey(b)}, VerifyOptions{})
		if err != nil || !report.OK() {
			b.Fatal(err, report.Findings)
		}
		for _, l := range report.Logs {
			n += l.Size
		}
	}
	b.ReportMetric(float64(n)/time.Since(start).Seconds(), "records/s")
}
