package topup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// maxWho bounds who asks and decides, in letters, and maxReason why, in bytes.
const (
	maxWho    = 128
	maxReason = 400
)

// RefundAsk asks to give money back to who paid it: of an account, as when a
// pupil leaves, or of a payment in the suspense account.
type RefundAsk struct {
	// Partner is the bank through which it goes back.
	Partner string
	// Account is the number of the account it is taken from; empty for a payment.
	Account string
	// Txn is the bank's id of a payment in the suspense account; empty for an account.
	Txn string
	// Amount is above zero. Zero means all: what is free in the account now, or
	// the whole payment, of which no part can be given back alone.
	Amount money.Amount
	// Reason is for the auditor.
	Reason string
	// By is who asks: a name or number of a member of staff. The account of the
	// system under which it was given may follow: "Olga (os:olga)".
	By string
}

// Refund is money asked back and what was decided.
type Refund struct {
	ID      int64        `json:"id"`
	Partner string       `json:"partner"`
	Account string       `json:"account,omitempty"`
	Txn     string       `json:"txn_id,omitempty"`
	Amount  money.Amount `json:"amount"`
	Reason  string       `json:"reason"`
	// State is asked, paid or declined and, of one that was paid, given or returned.
	State     string     `json:"state"`
	AskedBy   string     `json:"asked_by"`
	AskedAt   time.Time  `json:"asked_at"`
	DecidedBy string     `json:"decided_by,omitempty"`
	DecidedAt *time.Time `json:"decided_at,omitempty"`
	// EndedBy is who said that it was given or returned.
	EndedBy string     `json:"ended_by,omitempty"`
	EndedAt *time.Time `json:"ended_at,omitempty"`
}

// RefundEnd is how a refund ended that was paid out to the bank.
type RefundEnd string

// The ends.
const (
	// Given: the payer has it. The bank kept it back from what it transfers, or was
	// sent it: either way less of the bank's money is with us.
	Given RefundEnd = "given"
	// Returned: it could not be given, and is again in the account or the payment
	// that it was taken from.
	Returned RefundEnd = "returned"
)

// ErrSamePerson says that who asked for a refund may not pay it out.
var ErrSamePerson = errors.New("a refund needs two persons: somebody else than who asked for it has to pay it out")

// ErrNoRefund says that no refund of this id waits for a decision.
var ErrNoRefund = errors.New("no refund of this id waits for a decision")

// ErrNotPaid says that no refund of this id is on its way.
var ErrNotPaid = errors.New("no refund of this id is on its way: it was not paid, or has ended")

// checkWho refuses what an auditor could not read as somebody's name.
func checkWho(who string) error {
	if nameOf(who) == "" || utf8.RuneCountInString(who) > maxWho || strings.ContainsFunc(who, unicode.IsControl) {
		return fmt.Errorf("who does it is a name of 1 to %d letters", maxWho)
	}
	return nil
}

// nameOf is the name in who someone is, as names are compared: without the
// system's account behind it, in small letters and without doubled spaces.
func nameOf(who string) string {
	name, _, _ := strings.Cut(who, " (os:")
	return strings.ReplaceAll(strings.ToLower(strings.Join(strings.Fields(name), " ")), "ё", "е")
}

// AskRefund notes that money is to go back, and books nothing. An account or a
// payment that does not exist, and a sum that is not there, are errors.
func AskRefund(ctx context.Context, tx pgx.Tx, ask RefundAsk, now time.Time) (int64, error) {
	id, err := askRefund(ctx, tx, ask, now)
	if err != nil {
		return 0, fmt.Errorf("ask for a refund: %w", err)
	}
	return id, nil
}

func askRefund(ctx context.Context, tx pgx.Tx, ask RefundAsk, now time.Time) (id int64, err error) {
	if err := checkWho(ask.By); err != nil {
		return 0, err
	}
	if strings.TrimSpace(ask.Reason) == "" || len(ask.Reason) > maxReason {
		return 0, fmt.Errorf("the reason has 1 to %d bytes", maxReason)
	}
	p, err := findPartner(ctx, tx, ask.Partner)
	if err != nil {
		return 0, err
	}
	var wallet *int64
	var txn *string
	switch {
	case (ask.Account == "") == (ask.Txn == ""):
		return 0, errors.New("it is of an account or of a payment, and not of both")
	case ask.Txn != "":
		y, err := lockPayment(ctx, tx, p, ask.Txn, 0)
		switch {
		case err != nil:
			return 0, fmt.Errorf("payment %s of %s: %w", ask.Txn, ask.Partner, err)
		case y.state != "suspense":
			return 0, fmt.Errorf("payment %s of %s: it is %s, not in suspense", ask.Txn, ask.Partner, y.state)
		case ask.Amount != 0 && ask.Amount != y.sum:
			return 0, fmt.Errorf("payment %s of %s: it is given back whole: %s", ask.Txn, ask.Partner, y.sum)
		}
		ask.Amount, txn = y.sum, &ask.Txn
	default:
		wallets, err := ledger.WalletsByNumber(ctx, tx, []string{ask.Account})
		if err != nil {
			return 0, err
		}
		w, found := wallets[ask.Account]
		if !found {
			return 0, fmt.Errorf("there is no account %s", ask.Account)
		}
		if ask.Amount == 0 {
			ask.Amount = w.Available()
		}
		if ask.Amount <= 0 || ask.Amount > w.Available() {
			return 0, fmt.Errorf("account %s has %s to give back", ask.Account, max(0, w.Available()))
		}
		number := int64(w.Account)
		wallet = &number
	}
	err = tx.QueryRow(ctx, `
		INSERT INTO topup.refund (partner_id, wallet_id, txn_id, amount, reason, asked_by, asked_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (partner_id, txn_id) WHERE state = 'asked' DO NOTHING
		RETURNING id`, int64(p.ID), wallet, txn, int64(ask.Amount), ask.Reason, ask.By, now).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("payment %s of %s: a refund of it waits already", ask.Txn, ask.Partner)
	}
	return id, err
}

// PayRefund books a refund that somebody else has asked for: out of the wallet,
// or out of the suspense account, to the partner's clearing account. ErrSamePerson
// when by asked for it himself, ErrNoRefund when it does not wait for a decision.
// A wallet that has less by now is an error; it may be declined then.
func PayRefund(ctx context.Context, tx pgx.Tx, book *ledger.Book, id int64, by string, now time.Time) error {
	if err := payRefund(ctx, tx, book, id, by, now); err != nil {
		return fmt.Errorf("pay refund %d: %w", id, err)
	}
	return nil
}

func payRefund(ctx context.Context, tx pgx.Tx, book *ledger.Book, id int64, by string, now time.Time) error {
	if err := checkWho(by); err != nil {
		return err
	}
	var partner, asked string
	var wallet *int64
	var txn *string
	var amount money.Amount
	err := tx.QueryRow(ctx, `
		SELECT p.name, r.asked_by, r.wallet_id, r.txn_id, r.amount
		  FROM topup.refund r
		  JOIN topup.partner p ON p.id = r.partner_id
		 WHERE r.id = $1 AND r.state = 'asked'
		   FOR NO KEY UPDATE OF r`, id).Scan(&partner, &asked, &wallet, &txn, &amount)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return ErrNoRefund
	case err != nil:
		return err
	case nameOf(asked) == nameOf(by):
		return ErrSamePerson
	}
	p, err := findPartner(ctx, tx, partner)
	if err != nil {
		return err
	}
	var event ledger.EventID
	key := refundKey(p, id)
	if txn != nil {
		event, err = releasePayment(ctx, tx, book, p, *txn, p.clearing, key, now)
	} else {
		event, err = post(ctx, tx, book, ledger.Entry{
			Kind: ledger.Refund, Debit: ledger.AccountID(*wallet), Credit: p.clearing, Amount: amount,
			Source: key.Source, ExternalID: key.ExternalID, OccurredAt: now,
		})
	}
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		UPDATE topup.refund SET state = 'paid', decided_by = $2, decided_at = $3, event_id = $4 WHERE id = $1`,
		id, by, now, int64(event))
	return err
}

// refundKey is what the posting of a refund is booked under.
func refundKey(p *Partner, id int64) ledger.Key {
	return ledger.Key{Source: "refund/" + p.Name, ExternalID: fmt.Sprint(id)}
}

// EndRefund says how a refund ended that was paid: until then the bank's clearing
// account is short of it, and Breaks lists it. ErrNotPaid when it was not paid, or
// has ended.
func EndRefund(ctx context.Context, tx pgx.Tx, book *ledger.Book, id int64, how RefundEnd, by string, now time.Time) error {
	if err := endRefund(ctx, tx, book, id, how, by, now); err != nil {
		return fmt.Errorf("end refund %d: %w", id, err)
	}
	return nil
}

func endRefund(ctx context.Context, tx pgx.Tx, book *ledger.Book, id int64, how RefundEnd, by string, now time.Time) error {
	if err := checkWho(by); err != nil {
		return err
	}
	var partner string
	var txn *string
	var amount money.Amount
	err := tx.QueryRow(ctx, `
		SELECT p.name, r.txn_id, r.amount
		  FROM topup.refund r
		  JOIN topup.partner p ON p.id = r.partner_id
		 WHERE r.id = $1 AND r.state = 'paid'
		   FOR NO KEY UPDATE OF r`, id).Scan(&partner, &txn, &amount)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return ErrNotPaid
	case err != nil:
		return err
	}
	p, err := findPartner(ctx, tx, partner)
	if err != nil {
		return err
	}
	entry := ledger.Entry{Source: "refund-" + string(how) + "/" + p.Name, ExternalID: fmt.Sprint(id), OccurredAt: now}
	switch how {
	case Given:
		entry.Kind, entry.Debit, entry.Credit, entry.Amount = ledger.Settlement, p.clearing, p.settled, amount
	case Returned:
		entry.Kind, entry.Reverses = ledger.Reversal, refundKey(p, id)
		if txn != nil {
			if _, err := tx.Exec(ctx, `
				UPDATE topup.payment SET state = 'suspense' WHERE partner_id = $1 AND txn_id = $2`, int64(p.ID), *txn); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("%q is no end of a refund", how)
	}
	event, err := post(ctx, tx, book, entry)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		UPDATE topup.refund SET state = $2, ended_by = $3, ended_at = $4, end_event = $5 WHERE id = $1`,
		id, string(how), by, now, int64(event))
	return err
}

// DeclineRefund ends a refund that will not be paid. ErrNoRefund when it does not
// wait for a decision.
func DeclineRefund(ctx context.Context, tx pgx.Tx, id int64, by string, now time.Time) error {
	if err := checkWho(by); err != nil {
		return fmt.Errorf("decline refund %d: %w", id, err)
	}
	tag, err := tx.Exec(ctx, `
		UPDATE topup.refund SET state = 'declined', decided_by = $2, decided_at = $3 WHERE id = $1 AND state = 'asked'`,
		id, by, now)
	if err == nil && tag.RowsAffected() == 0 {
		err = ErrNoRefund
	}
	if err != nil {
		return fmt.Errorf("decline refund %d: %w", id, err)
	}
	return nil
}

// Refunds returns the refunds that wait for a decision or are on their way, or all
// of the last thousand, the newest first.
func Refunds(ctx context.Context, q pg.Querier, all bool) ([]Refund, error) {
	rows, err := q.Query(ctx, `
		SELECT r.id, p.name, coalesce(a.number, ''), coalesce(r.txn_id, ''), r.amount, r.reason, r.state, r.asked_by,
		       r.asked_at, coalesce(r.decided_by, ''), r.decided_at, coalesce(r.ended_by, ''), r.ended_at
		  FROM topup.refund r
		  JOIN topup.partner p ON p.id = r.partner_id
		  LEFT JOIN ledger.account a ON a.id = r.wallet_id
		 WHERE $1 OR r.state IN ('asked', 'paid')
		 ORDER BY r.id DESC
		 LIMIT 1000`, all)
	if err != nil {
		return nil, fmt.Errorf("read refunds: %w", err)
	}
	refunds, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Refund])
	if err != nil {
		return nil, fmt.Errorf("read refunds: %w", err)
	}
	return refunds, nil
}

// Suspended is a payment in the suspense account (D13).
type Suspended struct {
	Partner string       `json:"partner"`
	Txn     string       `json:"txn_id"`
	Account string       `json:"account"` // as the bank gave it
	Sum     money.Amount `json:"sum"`
	// Reason is closed, left, payee, unknown or amount.
	Reason   string    `json:"reason"`
	BankAt   time.Time `json:"bank_at"`
	BookedAt time.Time `json:"booked_at"`
}

// Suspense returns what lies in the suspense account, the oldest first.
func Suspense(ctx context.Context, q pg.Querier) ([]Suspended, error) {
	rows, err := q.Query(ctx, `
		SELECT p.name, y.txn_id, y.account, y.amount, y.reason, y.bank_at, y.booked_at
		  FROM topup.payment y
		  JOIN topup.partner p ON p.id = y.partner_id
		 WHERE y.state = 'suspense'
		 ORDER BY y.booked_at, y.event_id`)
	if err != nil {
		return nil, fmt.Errorf("read the suspense account: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Suspended])
	if err != nil {
		return nil, fmt.Errorf("read the suspense account: %w", err)
	}
	return list, nil
}
