package ledger_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"zvonok/ledger"
	"zvonok/ledger/money"
)

// model is the book in its simplest form: one map per table and one posting at
// a time. It knows the rules and nothing of locks, batches or statements.
type model struct {
	b        *books
	wallets  map[ledger.AccountID]*modelWallet
	ids      map[ledger.Key]*modelID
	totals   map[ledger.AccountID]money.Amount // of the accounts that are not wallets, credits less debits
	holds    map[string]*modelHold
	crossed  map[modelCrossing]bool
	postings int
}

type modelWallet struct {
	posted, held money.Amount
	ver          int
	closed       bool
	thresholds   map[modelOwner]money.Amount
}

type modelOwner struct {
	owner  int64
	upward bool
}

type modelCrossing struct {
	account ledger.AccountID
	modelOwner
	ver int
}

// modelID is what an id was taken for. body is nil for a tombstone.
type modelID struct {
	body     *modelBody
	code     ledger.Code // posted, refused, over_reversed
	reversed money.Amount
}

type modelBody struct {
	kind          ledger.Kind
	debit, credit ledger.AccountID
	amount        money.Amount
	subject       ledger.PersonID
	original      *modelID
}

type modelHold struct {
	account ledger.AccountID
	amount  money.Amount
	open    bool
}

// policyFloor is the debt floor of the organisation in these tests.
const policyFloor = -300_00

// legsOf is the chart of what each kind may do, for the kinds the test uses.
func (m *model) soundLegs(e ledger.Entry) bool {
	b := m.b
	wallet := func(a ledger.AccountID) bool { return m.wallets[a] != nil }
	switch e.Kind {
	case ledger.TopUp:
		return e.Debit == b.bank && wallet(e.Credit) && e.Mode != ledger.Offline
	case ledger.BuffetSale:
		return wallet(e.Debit) && e.Credit == b.buffet
	case ledger.HotMeal:
		return wallet(e.Debit) && e.Credit == b.provider
	case ledger.Transfer:
		return wallet(e.Debit) && wallet(e.Credit) && e.Debit != e.Credit && e.Mode != ledger.Offline
	case ledger.SubsidisedMeal:
		return e.Debit == b.budget && e.Credit == b.provider && e.Mode != ledger.Offline
	}
	return false
}

// post books a batch: originals of reversals are those that were there before it.
func (m *model) post(entries []ledger.Entry) []ledger.Code {
	bodies := make([]*modelBody, len(entries))
	wrong := make([]ledger.Code, len(entries))
	for i, e := range entries {
		bodies[i], wrong[i] = m.judge(e)
	}
	codes := make([]ledger.Code, len(entries))
	for i, e := range entries {
		key := ledger.Key{Source: e.Source, ExternalID: e.ExternalID}
		if id := m.ids[key]; id != nil {
			switch {
			case id.body == nil:
				codes[i] = ledger.CodeCancelled
			case *id.body != *bodies[i]:
				codes[i] = ledger.CodeConflict
			case id.code == ledger.CodePosted:
				codes[i] = ledger.CodeDuplicate
			default:
				codes[i] = id.code
			}
			continue
		}
		if codes[i] = wrong[i]; wrong[i] != "" {
			continue
		}
		codes[i] = m.book(bodies[i], e.Mode == ledger.Offline)
		m.ids[key] = &modelID{body: bodies[i], code: codes[i]}
	}
	return codes
}

// judge says what is wrong with an entry whatever the balances.
func (m *model) judge(e ledger.Entry) (*modelBody, ledger.Code) {
	body := &modelBody{e.Kind, e.Debit, e.Credit, e.Amount, e.Subject, nil}
	if e.Kind == ledger.Reversal {
		original := m.ids[e.Reverses]
		if original == nil || original.code != ledger.CodePosted {
			return body, ledger.CodeNoOriginal
		}
		body.original, body.debit, body.credit = original, original.body.credit, original.body.debit
		if body.amount == 0 {
			body.amount = original.body.amount
		}
		switch {
		case original.body.kind == ledger.Reversal:
			return body, ledger.CodeNotReversible
		case body.amount <= 0:
			return body, ledger.CodeBadAmount
		case e.Mode == ledger.Offline:
			return body, ledger.CodeBadLegs
		}
		return body, ""
	}
	switch {
	case e.Amount <= 0:
		return body, ledger.CodeBadAmount
	case !m.exists(e.Debit) || !m.exists(e.Credit):
		return body, ledger.CodeUnknownAccount
	case !m.soundLegs(e):
		return body, ledger.CodeBadLegs
	case e.Kind == ledger.TopUp && (e.Amount < 10_00 || e.Amount > 15000_00):
		return body, ledger.CodeBadAmount
	case e.Mode != ledger.Offline && (m.closed(e.Debit) || m.closed(e.Credit)):
		return body, ledger.CodeClosedAccount
	}
	return body, ""
}

func (m *model) exists(a ledger.AccountID) bool { return m.wallets[a] != nil || a < 10 }
func (m *model) closed(a ledger.AccountID) bool { return m.wallets[a] != nil && m.wallets[a].closed }

func (m *model) book(body *modelBody, forced bool) ledger.Code {
	if body.original != nil && body.original.reversed+body.amount > body.original.body.amount {
		return ledger.CodeOverReversed
	}
	if from := m.wallets[body.debit]; from != nil && !forced {
		before := from.posted - from.held
		after := before - body.amount
		owes := body.kind == ledger.HotMeal && before >= 0 && after >= policyFloor
		if after < 0 && !owes {
			return ledger.CodeRefused
		}
	}
	if body.original != nil {
		body.original.reversed += body.amount
	}
	m.move(body.debit, -body.amount)
	m.move(body.credit, body.amount)
	m.postings++
	return ledger.CodePosted
}

func (m *model) move(account ledger.AccountID, delta money.Amount) {
	w := m.wallets[account]
	if w == nil {
		m.totals[account] += delta
		return
	}
	before := w.posted
	w.posted += delta
	w.ver++
	for owner, amount := range w.thresholds {
		if owner.upward && before <= amount && w.posted > amount || !owner.upward && before >= amount && w.posted < amount {
			m.crossed[modelCrossing{account, owner, w.ver}] = true
		}
	}
}

func (m *model) setThreshold(account ledger.AccountID, owner modelOwner, amount money.Amount) {
	w := m.wallets[account]
	beyond := func(t money.Amount) bool {
		return owner.upward && w.posted > t || !owner.upward && w.posted < t
	}
	old, had := w.thresholds[owner]
	if had && old == amount {
		return
	}
	if beyond(amount) && (!had || !beyond(old)) {
		m.crossed[modelCrossing{account, owner, w.ver}] = true
	}
	w.thresholds[owner] = amount
}

// T13: after each of ten thousand random operations and more, the book and a
// simple model have given the same verdict and have the same balances, totals,
// postings and crossings; the books are sound in the end. -rapid.checks sets how
// many runs there are, and -rapid.seed repeats one.
func TestTheBookBehavesLikeASimpleModel(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 0)
	operations := 0
	rapid.Check(t, func(rt *rapid.T) {
		b.prefix = fmt.Sprintf("%d/", b.count(`SELECT count(*) FROM ledger.person`))
		b.exec(`INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name)
		        SELECT $1::text || i, o.id, 'pupil', 'Ivanov', 'Ivan' FROM generate_series(1, 3) AS i, ledger.organisation o`, b.prefix)
		b.openWallets()
		m := &model{
			b: b, wallets: map[ledger.AccountID]*modelWallet{}, ids: map[ledger.Key]*modelID{},
			totals: b.totals(), holds: map[string]*modelHold{}, crossed: map[modelCrossing]bool{},
			postings: b.count(`SELECT count(*) FROM ledger.posting`),
		}
		for _, w := range b.wallets {
			m.wallets[w] = &modelWallet{thresholds: map[modelOwner]money.Amount{}}
		}
		wallet := rapid.IntRange(0, 2)
		ids := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"})
		amount := rapid.Custom(func(t *rapid.T) money.Amount {
			return money.Amount(rapid.SampledFrom([]int{-1, 0, 1, 9_99, 10_00, 30_00, 50_00, 100_00, 250_00, 299_99, 300_00, 15000_01}).Draw(t, "sum"))
		})
		entry := rapid.Custom(func(t *rapid.T) ledger.Entry {
			id, at, sum := ids.Draw(t, "id"), wallet.Draw(t, "wallet"), amount.Draw(t, "amount")
			var e ledger.Entry
			switch rapid.IntRange(0, 11).Draw(t, "kind") {
			case 0, 1, 2:
				e = b.topUp(at, id, sum)
			case 3, 4:
				e = b.buy(at, id, sum)
			case 5, 6:
				e = b.eat(at, id, sum)
			case 7, 8:
				e = b.transfer(at, wallet.Draw(t, "to"), id, sum)
			case 9:
				e = b.subsidise(at, id, sum)
			default:
				e = b.reverse(id, rapid.SampledFrom([]string{"bank/mkb", "till/1", "subsidy", "back"}).Draw(t, "source"), ids.Draw(t, "of"), sum)
			}
			switch rapid.IntRange(0, 30).Draw(t, "twist") {
			case 0:
				e.Debit, e.Credit = e.Credit, e.Debit
			case 1:
				e.Debit = 77_777_777
			case 2, 3, 4, 5, 6:
				e.Mode = ledger.Offline
			}
			return e
		})
		actions := map[string]func(*rapid.T){
			"post": func(rt *rapid.T) {
				entries := rapid.SliceOfN(entry, 1, 7).Draw(rt, "entries")
				got, err := b.tryPost(t.Context(), entries...)
				if err != nil {
					rt.Fatal(err)
				}
				if want := m.post(entries); !slices.Equal(codes(got), want) {
					rt.Fatalf("verdicts %v, the model says %v", codes(got), want)
				}
			},
			"cancel": func(rt *rapid.T) {
				key := ledger.Key{Source: b.prefix + "till/1", ExternalID: ids.Draw(rt, "id")}
				b.inTx(func(tx pgx.Tx) error {
					_, err := b.book.Cancel(t.Context(), tx, []ledger.Key{key})
					return err
				})
				if m.ids[key] == nil {
					m.ids[key] = &modelID{}
				}
			},
			"hold": func(rt *rapid.T) {
				id, at := ids.Draw(rt, "id"), b.wallets[wallet.Draw(rt, "wallet")]
				sum := max(1, amount.Draw(rt, "amount"))
				w, want := m.wallets[at], ledger.CodeHeld
				switch h := m.holds[id]; {
				case h != nil && *h == (modelHold{at, sum, h.open}):
					want = ledger.CodeDuplicate
				case h != nil:
					want = ledger.CodeConflict
				case w.closed:
					want = ledger.CodeClosedAccount
				case w.posted-w.held < sum:
					want = ledger.CodeRefused
				default:
					w.held += sum
					m.holds[id] = &modelHold{at, sum, true}
				}
				b.inTx(func(tx pgx.Tx) error {
					got, err := b.book.HoldMoney(t.Context(), tx, []ledger.Hold{
						{Account: at, Amount: sum, Key: ledger.Key{Source: b.prefix + "hold", ExternalID: id}},
					})
					if err == nil && got[0] != want {
						rt.Fatalf("a hold is %s, the model says %s", got[0], want)
					}
					return err
				})
			},
			"end a hold": func(rt *rapid.T) {
				id := ids.Draw(rt, "id")
				want := 0
				if h := m.holds[id]; h != nil && h.open {
					h.open, want = false, 1
					m.wallets[h.account].held -= h.amount
				}
				b.inTx(func(tx pgx.Tx) error {
					got, err := b.book.EndHolds(t.Context(), tx, []ledger.Key{{Source: b.prefix + "hold", ExternalID: id}}, ledger.HoldReleased)
					if got != want {
						rt.Fatalf("%d holds ended, the model says %d", got, want)
					}
					return err
				})
			},
			"set a threshold": func(rt *rapid.T) {
				at, owner := wallet.Draw(rt, "wallet"), modelOwner{rapid.Int64Range(1, 2).Draw(rt, "owner"), rapid.Bool().Draw(rt, "upward")}
				sum := amount.Draw(rt, "amount")
				b.setThreshold(at, owner.owner, sum, owner.upward)
				m.setThreshold(b.wallets[at], owner, sum)
			},
			"close or open a wallet": func(rt *rapid.T) {
				at, closed := b.wallets[wallet.Draw(rt, "wallet")], rapid.Bool().Draw(rt, "closed")
				b.inTx(func(tx pgx.Tx) error {
					return ledger.SetClosed(t.Context(), tx, []ledger.AccountID{at}, closed, "accountant 5", "left")
				})
				m.wallets[at].closed = closed
			},
			"fold": func(rt *rapid.T) {
				_, err := b.book.Fold(t.Context(), b.pool)
				b.must(err)
			},
		}
		for name, action := range actions {
			actions[name] = func(rt *rapid.T) {
				operations++
				action(rt)
			}
		}
		// After each operation, also one that was refused and has to leave everything as it was.
		actions[""] = func(rt *rapid.T) {
			m.compareWallets(rt)
			m.compareTotals(rt)
		}
		for range 5 { // some 15,000 operations in the default 100 runs
			rt.Repeat(actions)
		}
	})
	t.Logf("%d operations", operations)
	b.sound()
}

// totals returns credits less debits of the accounts that are not wallets.
func (b *books) totals() map[ledger.AccountID]money.Amount {
	b.Helper()
	list, err := ledger.Totals(b.Context(), b.pool)
	b.must(err)
	totals := map[ledger.AccountID]money.Amount{}
	for _, t := range list {
		totals[t.Account] = t.Credit - t.Debit
	}
	return totals
}

// compareWallets wants the wallets to be in the model's state.
func (m *model) compareWallets(rt *rapid.T) {
	b := m.b
	balances, err := ledger.Balances(b.Context(), b.pool, b.people)
	b.must(err)
	for _, got := range balances {
		want := m.wallets[got.Account]
		if got.Posted != want.posted || got.Held != want.held || int(got.Moves) != want.ver || got.Closed != want.closed {
			rt.Fatalf("the wallet is %+v, the model's %+v", got, want)
		}
	}
}

// compareTotals wants the same of all that no operation can make good again.
func (m *model) compareTotals(rt *rapid.T) {
	b := m.b
	for account, got := range b.totals() {
		if got != m.totals[account] {
			rt.Fatalf("account %d has %s, the model's %s", account, got, m.totals[account])
		}
	}
	var postings, crossings int
	b.must(b.pool.QueryRow(b.Context(), `
		SELECT (SELECT count(*) FROM ledger.posting), (SELECT count(*) FROM ledger.crossing WHERE account_id = ANY ($1))`,
		b.wallets).Scan(&postings, &crossings))
	if postings != m.postings {
		rt.Fatalf("%d postings, the model has %d", postings, m.postings)
	}
	if crossings != len(m.crossed) {
		rt.Fatalf("%d crossings, the model has %d", crossings, len(m.crossed))
	}
}
