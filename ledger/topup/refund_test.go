package topup_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/topup"
)

func (c *city) askRefund(ask topup.RefundAsk) (id int64, err error) {
	c.Helper()
	err = pgx.BeginFunc(c.Context(), c.pool, func(tx pgx.Tx) (err error) {
		id, err = topup.AskRefund(c.Context(), tx, ask, c.clock.now())
		return err
	})
	return id, err
}

func (c *city) payRefund(id int64, by string) error {
	c.Helper()
	return pgx.BeginFunc(c.Context(), c.pool, func(tx pgx.Tx) error {
		return topup.PayRefund(c.Context(), tx, c.book, id, by, c.clock.now())
	})
}

// Money goes back on the word of two persons, out of a wallet or out of suspense.
func TestARefundNeedsTwoPersonsAndIsPaidOnce(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	before := c.wallet(example).Posted
	c.setClosed(second, true)
	if got := c.code(osmpPay("mkb", "1", second, "100.00")); got != 0 {
		t.Fatalf("the payment is %d", got)
	}
	suspended, err := topup.Suspense(t.Context(), c.pool)
	c.must(err)
	if len(suspended) != 1 || suspended[0].Txn != "1" || suspended[0].Reason != "closed" || suspended[0].Sum != 100_00 ||
		suspended[0].Account != second {
		t.Fatalf("in suspense are %+v", suspended)
	}

	ofWallet, err := c.askRefund(topup.RefundAsk{Partner: "mkb", Account: example, Reason: "left the school", By: "olga"})
	c.must(err)
	ofPayment, err := c.askRefund(topup.RefundAsk{Partner: "mkb", Txn: "1", Reason: "the payer wrote", By: "olga"})
	c.must(err)
	for name, ask := range map[string]topup.RefundAsk{
		"a second one of a payment":    {Partner: "mkb", Txn: "1", Reason: "r", By: "olga"},
		"a part of a payment":          {Partner: "mkb", Txn: "1", Amount: 50_00, Reason: "r", By: "olga"},
		"a payment there is not":       {Partner: "mkb", Txn: "777", Reason: "r", By: "olga"},
		"more than there is":           {Partner: "mkb", Account: example, Amount: before + 1, Reason: "r", By: "olga"},
		"nothing":                      {Partner: "mkb", Account: second, Reason: "r", By: "olga"},
		"an account there is not":      {Partner: "mkb", Account: nobody, Reason: "r", By: "olga"},
		"neither account nor payment":  {Partner: "mkb", Reason: "r", By: "olga"},
		"no reason":                    {Partner: "mkb", Account: example, Reason: " ", By: "olga"},
		"nobody who asks":              {Partner: "mkb", Account: example, Reason: "r"},
		"a bank that is not a partner": {Partner: "nobank", Account: example, Reason: "r", By: "olga"},
	} {
		if _, err := c.askRefund(ask); err == nil {
			t.Errorf("asking for %s was taken", name)
		}
	}
	for _, by := range []string{"olga", " Olga "} {
		if err := c.payRefund(ofWallet, by); !errors.Is(err, topup.ErrSamePerson) {
			t.Errorf("paid by %q: %v", by, err)
		}
	}
	if c.wallet(example).Posted != before {
		t.Error("asking has moved money")
	}
	c.must(c.payRefund(ofWallet, "pavel"))
	c.must(c.payRefund(ofPayment, "pavel"))
	for _, id := range []int64{ofWallet, ofPayment, 4711} {
		if err := c.payRefund(id, "pavel"); !errors.Is(err, topup.ErrNoRefund) {
			t.Errorf("refund %d once more: %v", id, err)
		}
	}
	if got := c.wallet(example).Posted; got != 0 {
		t.Errorf("the wallet has %s", got)
	}
	if suspended, err = topup.Suspense(t.Context(), c.pool); err != nil || len(suspended) != 0 {
		t.Errorf("in suspense are %+v, %v", suspended, err)
	}

	// What was spent meanwhile is refused, stays open and may be declined.
	c.setClosed(second, false)
	if got := c.code(osmpPay("mkb", "2", second, "100.00")); got != 0 {
		t.Fatalf("the payment is %d", got)
	}
	first, err := c.askRefund(topup.RefundAsk{Partner: "mkb", Account: second, Amount: 80_00, Reason: "r", By: "olga"})
	c.must(err)
	late, err := c.askRefund(topup.RefundAsk{Partner: "mkb", Account: second, Amount: 80_00, Reason: "r", By: "olga"})
	c.must(err)
	c.must(c.payRefund(first, "pavel"))
	if err := c.payRefund(late, "pavel"); err == nil || !strings.Contains(err.Error(), "not enough money") {
		t.Errorf("a refund of spent money: %v", err)
	}
	open, err := topup.Refunds(t.Context(), c.pool, false)
	c.must(err)
	if len(open) != 1 || open[0].ID != late || open[0].Account != second || open[0].AskedBy != "olga" {
		t.Errorf("open refunds %+v", open)
	}
	c.must(pgx.BeginFunc(t.Context(), c.pool, func(tx pgx.Tx) error {
		return topup.DeclineRefund(t.Context(), tx, late, "olga", c.clock.now())
	}))
	all, err := topup.Refunds(t.Context(), c.pool, true)
	c.must(err)
	if len(all) != 4 || all[0].State != "declined" || all[1].State != "paid" || all[1].DecidedBy != "pavel" {
		t.Errorf("all refunds %+v", all)
	}
	// The database holds the two persons as well.
	if _, err := c.pool.Exec(t.Context(), `
		UPDATE topup.refund SET state = 'paid', decided_by = asked_by, event_id = 1 WHERE id = $1`, late); err == nil {
		t.Error("the database let one person ask and pay")
	}
	c.sound()
}
