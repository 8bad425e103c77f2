package topup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// postChunk is how many postings of a large registry go into one call of the book.
const postChunk = 500

// origin is how we learned of a payment.
type origin string

const (
	fromPay      origin = "pay"
	fromRegistry origin = "registry"
)

// reason is why money went to the suspense account.
type reason string

const (
	credited      reason = ""
	toClosed      reason = "closed"
	toLeft        reason = "left"
	foreignPayee  reason = "payee"
	toUnknown     reason = "unknown"
	outsideLimits reason = "amount"
)

// payment is money that a bank says it took.
type payment struct {
	partner  *Partner
	protocol protocol
	origin   origin
	txn      string
	account  string
	sum      money.Amount
	bankAt   time.Time
	payee    string
	terminal string
}

// booking is what became of a payment.
type booking struct {
	outcome Outcome
	// answer are the bytes to answer with, when it is booked.
	answer []byte
	// suspense tells that a new payment went to the suspense account.
	suspense reason
}

// wallet is an account a payment may go to.
type wallet struct {
	id           ledger.AccountID
	closed, left bool
	name         childName
	balance      money.Amount
	payee        ledger.Payee
}

// queueWallets reads wallets by account number, in one query whatever the numbers.
func queueWallets(batch *pgx.Batch, numbers []string, today time.Time, into map[string]wallet) {
	batch.Queue(`
		SELECT a.number, a.id, b.posted, b.closed, coalesce(p.left_on <= $2::date, false), p.family_name, p.given_name,
		       p.patronymic, coalesce(y.code, ''), coalesce(y.name, ''), coalesce(y.inn, ''), coalesce(y.payment_code, '')
		  FROM ledger.account a
		  JOIN ledger.balance b ON b.account_id = a.id
		  JOIN ledger.person p ON p.id = a.person_id
		  JOIN ledger.organisation o ON o.id = p.organisation_id
		  LEFT JOIN ledger.payee y ON y.code = o.payee_code
		 WHERE a.number = ANY ($1)`, numbers, today).Query(func(rows pgx.Rows) error {
		var number string
		var w wallet
		_, err := pgx.ForEachRow(rows, []any{
			&number, &w.id, &w.balance, &w.closed, &w.left, &w.name.family, &w.name.given, &w.name.patronymic,
			&w.payee.Code, &w.payee.Name, &w.payee.INN, &w.payee.PaymentCode,
		}, func() error {
			into[number] = w
			return nil
		})
		return err
	})
}

// paymentKey is what a payment is known by.
type paymentKey struct {
	partner PartnerID
	txn     string
}

// stored is a payment we have.
type stored struct {
	account  string
	sum      money.Amount
	answer   []byte
	origin   origin
	event    int64
	bookedAt time.Time
}

func queueStored(batch *pgx.Batch, keys []paymentKey, into map[paymentKey]stored) {
	partners, txns := make([]int64, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		partners[i], txns[i] = int64(k.partner), k.txn
	}
	batch.Queue(`
		SELECT y.partner_id, y.txn_id, y.account, y.amount, coalesce(y.repeat_answer, y.answer),
		       y.origin, y.event_id, y.booked_at
		  FROM unnest($1::bigint[], $2::text[]) AS k (partner_id, txn_id)
		  JOIN topup.payment y ON y.partner_id = k.partner_id AND y.txn_id = k.txn_id`, partners, txns).Query(
		func(rows pgx.Rows) error {
			var key paymentKey
			var s stored
			_, err := pgx.ForEachRow(rows, []any{
				&key.partner, &key.txn, &s.account, &s.sum, &s.answer, &s.origin, &s.event, &s.bookedAt,
			}, func() error {
				into[key] = s
				return nil
			})
			return err
		})
}

// again answers a payment whose id we have. Which of its protocols Sberbank
// speaks was not known when a registry brought the payment; what is said is the
// same in both.
func (s stored) again(y *payment) booking {
	if s.account != y.account || s.sum != y.sum {
		return booking{outcome: Conflict}
	}
	if s.origin == fromRegistry && y.origin == fromPay && y.protocol != y.partner.defaultProtocol() {
		return booking{outcome: Duplicate, answer: y.partner.render(y.protocol, answer{
			outcome: Duplicate, txn: y.txn, prv: s.event, sum: s.sum, bookedAt: s.bookedAt,
		})}
	}
	return booking{outcome: Duplicate, answer: s.answer}
}

// suspenseReason tells why the money cannot go to the wallet it was paid to.
func (y *payment) suspenseReason(w wallet, known bool) reason {
	switch {
	case !known:
		return toUnknown
	case w.left:
		return toLeft
	case w.closed:
		return toClosed
	case !y.partner.serves(w.payee, y.payee):
		return foreignPayee
	case y.sum < DefaultMin || y.sum > DefaultMax:
		return outsideLimits
	}
	return credited
}

// serves tells whether the partner takes money for a payee, and the request,
// if it names a payee, means this one.
func (p *Partner) serves(payee ledger.Payee, named string) bool {
	if payee.Code == "" || named != "" && named != payee.PaymentCode {
		return false
	}
	return slices.Contains(p.PaymentCodes, payee.PaymentCode)
}

// fresh is a payment about to be inserted.
type fresh struct {
	place  int
	event  ledger.EventID
	wallet wallet
	reason reason
	answer []byte
	// again is what a repeat is answered; nil when that is the same.
	again []byte
}

// bookPayments books payments in the transaction and tells what became of each,
// in order. It takes the ids in their order and then the wallets in theirs, so
// that transactions of its own kind do not deadlock.
func bookPayments(ctx context.Context, tx pgx.Tx, book *ledger.Book, payments []payment, now time.Time) ([]booking, error) {
	bookings := make([]booking, len(payments))
	keys := make([]paymentKey, len(payments))
	numbers := make([]string, len(payments))
	for i := range payments {
		keys[i] = paymentKey{payments[i].partner.ID, payments[i].txn}
		numbers[i] = payments[i].account
	}
	known, wallets := map[paymentKey]stored{}, map[string]wallet{}
	events := make([]ledger.EventID, 0, len(payments))
	suspense := ledger.AccountID(0)
	var batch pgx.Batch
	queueStored(&batch, keys, known)
	queueWallets(&batch, numbers, today(book, now), wallets)
	batch.Queue(`SELECT nextval('ledger.event_id') FROM generate_series(1, $1)`, len(payments)).Query(
		func(rows pgx.Rows) (err error) {
			events, err = pgx.AppendRows(events, rows, pgx.RowTo[ledger.EventID])
			return err
		})
	batch.Queue(`SELECT id FROM ledger.account WHERE kind = 'suspense' AND owner = ''`).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&suspense}, func() error { return nil })
		return err
	})
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, fmt.Errorf("look payments up: %w", err)
	}

	var inserts []fresh
	for i := range payments {
		y := &payments[i]
		if s, have := known[keys[i]]; have {
			bookings[i] = s.again(y)
			continue
		}
		w, found := wallets[y.account]
		if y.origin == fromPay {
			if outcome := y.refused(found); outcome != OK {
				bookings[i].outcome = outcome
				continue
			}
		}
		f := fresh{place: i, event: events[i], wallet: w, reason: y.suspenseReason(w, found)}
		f.answer, f.again = y.answers(&f, now)
		inserts = append(inserts, f)
	}
	if len(inserts) == 0 {
		return bookings, nil
	}
	inserted, err := insertPayments(ctx, tx, payments, inserts, now)
	if err != nil {
		return nil, err
	}
	if len(inserted) < len(inserts) { // others came under the same ids meanwhile, or within this call
		batch = pgx.Batch{}
		queueStored(&batch, keys, known)
		if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
			return nil, fmt.Errorf("look payments up: %w", err)
		}
	}
	kept := inserts[:0]
	for _, f := range inserts {
		if inserted[f.event] {
			bookings[f.place] = booking{outcome: OK, answer: f.answer, suspense: f.reason}
			kept = append(kept, f)
			continue
		}
		s, have := known[keys[f.place]]
		if !have {
			return nil, fmt.Errorf("insert payments: the row of event %d is neither new nor there", f.event)
		}
		bookings[f.place] = s.again(&payments[f.place])
	}
	return bookings, postPayments(ctx, tx, book, payments, kept, bookings, suspense, now)
}

// today is the date by which someone has left, at midnight UTC.
func today(book *ledger.Book, now time.Time) time.Time {
	y, m, d := now.In(book.Zone).Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// refused tells why a new pay is not booked. What may change between a check and
// its pay is no reason. The sum comes first: what costs nothing must not tell, any
// number of times, which accounts there are.
func (y *payment) refused(found bool) Outcome {
	switch {
	case y.sum < y.partner.Min:
		return TooSmall
	case y.sum > y.partner.Max:
		return TooLarge
	case !found:
		return NotFound
	}
	return OK
}

// answers makes the bytes of the first answer and, where it differs, of later ones.
func (y *payment) answers(f *fresh, now time.Time) (first, again []byte) {
	a := answer{
		outcome: OK, comment: "credited", txn: y.txn, prv: int64(f.event), sum: y.sum, bookedAt: now,
		receipt: y.partner.receiptOf(y.account, y.sum, int64(f.event), now, payeeLine(f.wallet.payee.Name, f.wallet.payee.INN)),
	}
	first = y.partner.render(y.protocol, a)
	if y.partner.Dialect == Sber {
		a.outcome, a.comment = Duplicate, ""
		again = y.partner.render(y.protocol, a)
	}
	return first, again
}

func insertPayments(
	ctx context.Context, tx pgx.Tx, payments []payment, inserts []fresh, now time.Time,
) (map[ledger.EventID]bool, error) {
	n := len(inserts)
	partners, events, amounts := make([]int64, n), make([]int64, n), make([]int64, n)
	wallets := make([]*int64, n)
	txns, accounts, payees, terminals := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	origins, states, reasons := make([]string, n), make([]string, n), make([]string, n)
	bankAts, days := make([]time.Time, n), make([]time.Time, n)
	answers, agains := make([][]byte, n), make([][]byte, n)
	for i := range inserts {
		f := &inserts[i]
		y := &payments[f.place]
		partners[i], events[i], amounts[i] = int64(y.partner.ID), int64(f.event), int64(y.sum)
		txns[i], accounts[i], payees[i], terminals[i] = y.txn, y.account, string(f.wallet.payee.Code), y.terminal
		origins[i], states[i], reasons[i] = string(y.origin), "suspense", string(f.reason)
		if f.reason == credited {
			id := int64(f.wallet.id)
			wallets[i], states[i] = &id, "credited"
		}
		year, month, day := now.In(y.partner.zone).Date()
		bankAts[i], days[i] = y.bankAt, time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
		answers[i], agains[i] = f.answer, f.again
	}
	rows, err := tx.Query(ctx, `
		INSERT INTO topup.payment (partner_id, txn_id, event_id, amount, wallet_id, bank_at, booked_at, day, account,
		                           payee_code, terminal, origin, state, reason, answer, repeat_answer)
		SELECT i.partner_id, i.txn_id, i.event_id, i.amount, i.wallet_id, i.bank_at, $16, i.day, i.account,
		       i.payee_code, i.terminal, i.origin, i.state, i.reason, i.answer, i.repeat_answer
		  FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::date[],
		              $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bytea[], $15::bytea[])
		       AS i (partner_id, txn_id, event_id, amount, wallet_id, bank_at, day, account, payee_code, terminal, origin,
		             state, reason, answer, repeat_answer)
		 ORDER BY i.partner_id, i.txn_id, i.event_id
		ON CONFLICT (partner_id, txn_id) DO NOTHING
		RETURNING event_id`,
		partners, txns, events, amounts, wallets, bankAts, days, accounts, payees, terminals, origins, states, reasons,
		answers, agains, now)
	if err != nil {
		return nil, fmt.Errorf("insert payments: %w", err)
	}
	inserted := make(map[ledger.EventID]bool, n)
	var event ledger.EventID
	if _, err := pgx.ForEachRow(rows, []any{&event}, func() error {
		inserted[event] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("insert payments: %w", err)
	}
	return inserted, nil
}

// postPayments books inserted payments. A wallet that was closed since it was
// read makes its payment one for the suspense account.
func postPayments(
	ctx context.Context, tx pgx.Tx, book *ledger.Book, payments []payment, inserts []fresh, bookings []booking,
	suspense ledger.AccountID, now time.Time,
) error {
	if suspense == 0 {
		ids, err := ledger.SystemAccounts(ctx, tx, ledger.SystemAccount{Kind: ledger.Suspense})
		if err != nil {
			return err
		}
		suspense = ids[0]
	}
	if len(inserts) > postChunk {
		var wallets []ledger.AccountID
		for _, f := range inserts {
			if f.reason == credited {
				wallets = append(wallets, f.wallet.id)
			}
		}
		if err := book.LockWallets(ctx, tx, wallets); err != nil {
			return err
		}
	}
	entries := make([]ledger.Entry, len(inserts))
	for i := range inserts {
		entries[i] = payments[inserts[i].place].entry(&inserts[i], suspense, book, now)
	}
	var late []ledger.Entry // into wallets closed meanwhile
	var lateEvents []int64
	for from := 0; from < len(entries); from += postChunk {
		chunk := entries[from:min(from+postChunk, len(entries))]
		verdicts, err := book.Post(ctx, tx, chunk)
		if err != nil {
			return err
		}
		for i, v := range verdicts {
			f := &inserts[from+i]
			switch {
			case v.Code == ledger.CodePosted:
			case v.Code == ledger.CodeClosedAccount && f.reason == credited:
				f.reason = toClosed
				bookings[f.place].suspense = toClosed
				late = append(late, payments[f.place].entry(f, suspense, book, now))
				lateEvents = append(lateEvents, int64(f.event))
			default:
				return fmt.Errorf("post the payment of event %d: the book says %s", f.event, v.Code)
			}
		}
	}
	if len(late) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `
		UPDATE topup.payment SET wallet_id = NULL, state = 'suspense', reason = 'closed' WHERE event_id = ANY ($1)`,
		lateEvents); err != nil {
		return fmt.Errorf("move payments to the suspense account: %w", err)
	}
	verdicts, err := book.Post(ctx, tx, late)
	if err != nil {
		return err
	}
	for i, v := range verdicts {
		if v.Code != ledger.CodePosted {
			return fmt.Errorf("post the payment of event %d: the book says %s", lateEvents[i], v.Code)
		}
	}
	return nil
}

// entry is the posting of a payment. It happened when the bank says, unless the
// bank's clock is far off; the accounting day is ours. A registry's payment
// keeps the bank's time however old, so that nobody is told of it as news.
func (y *payment) entry(f *fresh, suspense ledger.AccountID, book *ledger.Book, now time.Time) ledger.Entry {
	e := ledger.Entry{
		Event: f.event, Kind: ledger.TopUp, Debit: y.partner.clearing, Credit: f.wallet.id, Amount: y.sum,
		Source: y.partner.source(), ExternalID: y.txn, OccurredAt: y.bankAt, Day: now.In(book.Zone),
	}
	if f.reason != credited {
		e.Kind, e.Credit = ledger.Unclear, suspense
	}
	if skew := now.Sub(y.bankAt); skew < -maxSkew || skew > maxSkew && y.origin == fromPay {
		e.OccurredAt = now
	}
	return e
}

// Release is the order to move a payment out of the suspense account.
type Release struct {
	Partner string
	Txn     string
	// Account is the number of the account it was meant for.
	Account string
	// By is who says so; it is kept.
	By string
}

// ReleasePayment moves a payment from the suspense account to the account it was
// meant for; back to who paid it goes a refund (AskRefund). It is booked once: a
// second release of the same payment, and one that cannot be, is an error.
func ReleasePayment(ctx context.Context, tx pgx.Tx, book *ledger.Book, r Release, now time.Time) error {
	if err := checkWho(r.By); err != nil {
		return fmt.Errorf("release a payment: %w", err)
	}
	p, err := findPartner(ctx, tx, r.Partner)
	if err != nil {
		return fmt.Errorf("release a payment: %w", err)
	}
	wallets, err := ledger.WalletsByNumber(ctx, tx, []string{r.Account})
	if err != nil {
		return fmt.Errorf("release payment %s of %s: %w", r.Txn, r.Partner, err)
	}
	w, found := wallets[r.Account]
	if !found {
		return fmt.Errorf("release payment %s of %s: there is no account %q", r.Txn, r.Partner, r.Account)
	}
	key := ledger.Key{Source: "release/" + p.Name, ExternalID: r.Txn}
	if _, err := releasePayment(ctx, tx, book, p, r.Txn, w.Account, key, now); err != nil {
		return fmt.Errorf("release payment %s of %s: %w", r.Txn, r.Partner, err)
	}
	if _, err := tx.Exec(ctx, `
		UPDATE topup.payment SET released_by = $3, released_at = $4 WHERE partner_id = $1 AND txn_id = $2`,
		int64(p.ID), r.Txn, r.By, now); err != nil {
		return fmt.Errorf("release payment %s of %s: %w", r.Txn, r.Partner, err)
	}
	return nil
}

// releasePayment moves a payment out of the suspense account, once; key is what
// the posting is booked under.
func releasePayment(
	ctx context.Context, tx pgx.Tx, book *ledger.Book, p *Partner, txn string, to ledger.AccountID, key ledger.Key, now time.Time,
) (ledger.EventID, error) {
	y, err := lockPayment(ctx, tx, p, txn, 0)
	if err != nil {
		return 0, err
	}
	if y.state != "suspense" {
		return 0, fmt.Errorf("it is %s, not in suspense", y.state)
	}
	accounts, err := ledger.SystemAccounts(ctx, tx, ledger.SystemAccount{Kind: ledger.Suspense})
	if err != nil {
		return 0, err
	}
	event, err := post(ctx, tx, book, ledger.Entry{
		Kind: ledger.Release, Debit: accounts[0], Credit: to, Amount: y.sum,
		Source: key.Source, ExternalID: key.ExternalID, OccurredAt: now,
	})
	if err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, `UPDATE topup.payment SET state = 'released' WHERE event_id = $1`, int64(y.event)); err != nil {
		return 0, err
	}
	return event, nil
}

// post books one entry under an event of its own. Anything but a new posting is
// an error that says in words why.
func post(ctx context.Context, tx pgx.Tx, book *ledger.Book, e ledger.Entry) (ledger.EventID, error) {
	events, err := ledger.NextEventIDs(ctx, tx, 1)
	if err != nil {
		return 0, err
	}
	e.Event = events[0]
	verdicts, err := book.Post(ctx, tx, []ledger.Entry{e})
	if err != nil {
		return 0, err
	}
	switch code := verdicts[0].Code; code {
	case ledger.CodePosted:
		return e.Event, nil
	case ledger.CodeRefused:
		return 0, errors.New("there is not enough money in the account")
	case ledger.CodeClosedAccount:
		return 0, errors.New("the account is closed")
	default:
		return 0, fmt.Errorf("the book says %s", code)
	}
}

// readWallet reads one wallet by number.
func readWallet(ctx context.Context, q pg.Querier, number string, day time.Time) (wallet, bool, error) {
	wallets := map[string]wallet{}
	var batch pgx.Batch
	queueWallets(&batch, []string{number}, day, wallets)
	if err := q.SendBatch(ctx, &batch).Close(); err != nil {
		return wallet{}, false, fmt.Errorf("look an account up: %w", err)
	}
	w, found := wallets[number]
	return w, found, nil
}
