package sim

import "keyd.dev/keyd/internal/iso8583"

// Reasons why a test is not run from outside.
const (
	notInsider  = "an insider's attack: needs the machine, not the line"
	notUpstream = "needs the line to the issuer"
	notCode     = "looks at the program, not at what it answers"
	notPolicy   = "depends on a limit of the configuration"
	notStart    = "needs a stop and a start, or another day"
)

// FraudTests is the catalogue: every test of every attack, those that cannot be run
// from outside with the test of keyd that has them.
func FraudTests() []FraudTest {
	const reversal, repeat, advice, adviceRepeat = iso8583.ReversalRequest, iso8583.ReversalRepeat, iso8583.MTI("0420"), iso8583.MTI("0421")
	const sale, refund = iso8583.FinancialRequest, iso8583.FinancialAdvice
	not := func(id, title, why, covered string) FraudTest {
		return FraudTest{Test: id, Title: title, Stops: why, Covered: covered}
	}
	return []FraudTest{
		{Test: "A-01.T1", Title: "reversal from a receipt, own terminal", Stops: "originals are looked for in the sender's own space (D-12)", Run: fromReceipt},
		{Test: "A-01.T2", Title: "reversal from a receipt, the victim's TID", Stops: "the MAC (D-04)", Run: underOtherKey(reversal)},
		{Test: "A-01.T3", Title: "reversal from a receipt, no valid MAC", Stops: "the MAC (D-03, D-04)", Run: badMAC(reversal)},
		{Test: "A-01.T3", Title: "the same at UnionPay: no MAC, guessed, cut short", Stops: "the MAC (D-03, D-04)", Run: cupRun(cupBad), Needs: NeedsMaster},
		not("A-02.T1", "a reversal by hand with one approver", notInsider, "cmd/keyd reversal.txtar"),
		not("A-02.T2", "a row changed with SQL", notInsider, "internal/store TestR50EveryChangedColumnIsRefused"),
		not("A-02.T3", "a record deleted from the log", notInsider, "audit TestTampering/A-02.T3"),
		not("A-03.T1", "more cash reversals than an hour allows", notPolicy, "softhsm-test TestVelocity/A-03.T1"),
		not("A-04.T1", "one master key for two terminals", "needs the role admin", "internal/custody A-04.T1"),
		{Test: "A-04.T2", Title: "a sale under another terminal's key", Stops: "the key of the TID verifies (D-04)", Run: underOtherKey(sale)},
		{Test: "A-04.T3", Title: "refund and reversal without a MAC", Stops: "the MAC is required by type (D-03)", Run: bareMAC(refund, reversal)},
		not("A-05.T1", "comparisons that stop early", notCode, "internal/arch TestConstantTime"),
		not("A-05.T2", "time of a wrong first and last byte", notCode, "internal/dudect A-05.T2"),
		not("A-06.T1", "a decline made an approval", notUpstream, "softhsm-test TestAttackUpstream/A-06.T1"),
		not("A-06.T2", "an answer to nothing", notUpstream, "softhsm-test A-06.T2"),
		not("A-06.T3", "a request swallowed", notUpstream, "softhsm-test A-06.T3"),
		{Test: "A-07.T1", Title: "the MAC and its bit taken out of a 0400", Stops: "the MAC is required by type (D-03)", Run: bareMAC(reversal)},
		{Test: "A-07.T2", Title: "the same of 0200, 0401, 0420, 0421", Stops: "the MAC is required by type (D-03)", Run: bareMAC(sale, repeat, advice, adviceRepeat)},
		not("A-07.T3", "a profile without MAC", notCode, "internal/profile A-07.T3"),
		not("A-08.T1", "the MAC function takes the forgery", notCode, "mac A-08.T1"),
		{Test: "A-08.T2", Title: "another amount, merchant or batch under a genuine MAC", Stops: "the comparison with registry and original (D-02, D-11, D-14)", Run: cupRun(linear), Needs: NeedsMaster},
		{Test: "A-08.T3", Title: "every compared field of a reversal changed, valid MAC", Stops: "the comparison with the original (D-02, D-13 to D-15)", Run: changed},
		not("A-08.T4", "the linear MAC on an open link", notCode, "internal/profile TestAdmit"),
		{Test: "A-09.T1", Title: "zeros that the MAC's padding does not see", Stops: "the strict codec (D-01, D-06)", Run: crooked},
		{Test: "A-09.T2", Title: "a zero after the last field, and what else padding hides", Stops: "the strict codec (D-01)", Run: crooked},
		not("A-09.T3", "algorithm 1 and a zero more", notCode, "softhsm-test TestPaddingOne"),
		not("A-10.T1", "more messages than a key may verify", notPolicy, "softhsm-test TestA10T1"),
		not("A-10.T2", "a single-DES key where none is allowed", "needs the role admin", "internal/custody A-10.T2"),
		{Test: "A-11.T1", Title: "MACs cut short", Stops: "the length of the registry (D-03, D-04)", Run: cutShort},
		{Test: "A-11.T2", Title: "guessing on: the terminal is locked there, and there alone", Stops: "the lock-out (W-19)", Run: locked},
		{Test: "A-11.T3", Title: "a lock-out by one link, and the terminal's own", Stops: "it is that link's alone (W-19)", Run: locked},
		{Test: "A-12.T1", Title: "an honoured 0400 again and again", Stops: "one identity, one effect (D-07)", Run: replayed},
		{Test: "A-12.T2", Title: "a recorded 0400 after a new sign-in", Stops: "a new key at each sign-in (D-04)", Run: cupRun(oldKey), Needs: NeedsMaster},
		not("A-12.T3", "the next day under the old key", notStart, "internal/custody A-12.T3"),
		{Test: "A-13.T1", Title: "a recorded sale after its reversal", Stops: "a reversed original stays (94)", Run: saleAgain},
		not("A-14.T1", "keyd's 0420 sent back as its answer", notUpstream, "softhsm-test A-14.T1"),
		{Test: "A-14.T2", Title: "keyd's own 0410 sent back by a terminal", Stops: "answers from terminals are dropped (D-01)", Run: reflected},
		{Test: "A-15.T1", Title: "KSNs that were used, are far ahead, cannot be", Stops: "the counter only rises, in small steps (D-06)", Run: rolledBack},
		{Test: "A-15.T2", Title: "the same bytes under the same KSN", Stops: "one identity, one effect (D-07)", Run: replayed},
		{Test: "A-15.T3", Title: "other bytes under a used KSN", Stops: "the counter only rises (D-06)", Run: rolledBack},
		{Test: "A-15.T4", Title: "a KSN far ahead", Stops: "small steps (D-06)", Run: rolledBack},
		not("A-15.T5", "killed between KSN and effect", notStart, "softhsm-test TestAttackCutOff"),
		{Test: "A-15.T6", Title: "a TDES counter of eleven ones", Stops: "the form of the KSN (D-06)", Run: rolledBack},
		{Test: "A-16.T1", Title: "KSN and MAC of another device", Stops: "the device is bound to the TID (D-06)", Run: foreignKSN},
		{Test: "A-17.T1", Title: "answers to bad MACs with and without an original", Stops: "the MAC comes before any look-up", Run: oracle},
		not("A-17.T2", "looks into the journal before the MAC", notCode, "softhsm-test TestAttackOracle"),
		not("A-17.T3", "times of bad MACs", notCode, "softhsm-test TestAttackOracle"),
		{Test: "A-18.T1", Title: "another TPDU and header", Stops: "nothing is decided by them (U-06)", Run: cupRun(rerouted), Needs: NeedsMaster},
		{Test: "A-18.T2", Title: "a good message by a link that is not the terminal's", Stops: "the client of the link (D-02, W-20)", Run: elsewhere, Needs: NeedsStranger},
		{Test: "A-19.T1", Title: "keys of many sign-ins", Stops: "they are made in the token, each apart (U-50)", Run: cupRun(signIns), Needs: NeedsMaster},
		not("A-19.T2", "a PIN key that signs", notInsider, "internal/custody A-19.T2"),
		not("A-19.T3", "a changed DE 62", "the terminal's part", "keys/unionpay, internal/sim"),
		{Test: "A-20.T1", Title: "refusals that could be forged", Stops: "each has a valid MAC", Run: declines},
		{Test: "A-21.T1", Title: "an approval that comes late", Stops: "it is reversed, and never delivered", Run: late, Needs: NeedsBook},
		{Test: "A-22.T1", Title: "parts that add up to more than the sale", Stops: "the sum in the database (D-26, D-27)", Run: inParts},
		not("A-22.T2", "two parts at the same moment", "a race, which one try proves nothing of", "softhsm-test TestAttackParts"),
		not("A-22.T3", "a sum above the amount with SQL", notInsider, "internal/store A-22.T3"),
		not("A-23.T1", "poison in the queue", notInsider, "softhsm-test TestSwitchQueue"),
		not("A-23.T2", "a flood in the queue", notUpstream, "softhsm-test TestSwitchQueue"),
		not("A-23.T3", "a full disk", notInsider, "softhsm-test TestSwitchQueue"),
		{Test: "A-24.T1", Title: "a 0401 without a 0400 before it", Stops: "repeats go the same way (D-10)", Run: flagAlone},
		{Test: "A-24.T2", Title: "a 0401 made of a 0400", Stops: "the type is under the MAC (D-04)", Run: repeatFlag},
		{Test: "A-24.T3", Title: "0401 and 0421 with a bad MAC", Stops: "repeats go the same way (D-04)", Run: badMAC(repeat, adviceRepeat)},
		not("A-25.T1", "the same numbers a year later", notStart, "softhsm-test TestAttackNumbers"),
		{Test: "A-25.T2", Title: "the same numbers in the next batch", Stops: "the batch is part of the key", Run: cupRun(nextBatch), Needs: NeedsMaster},
		{Test: "A-25.T3", Title: "the same numbers with other content", Stops: "the look-up key is unique (94)", Run: sameNumbers},
		not("A-26.T1", "card numbers in files and logs", notInsider, "cmd/keyd TestCanaries"),
		{Test: "A-27.T1", Title: "a terminal that never comes back", Stops: "keyd reverses what it could not deliver", Run: gone, Needs: NeedsBook},
	}
}
