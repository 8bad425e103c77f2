package topup_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/money"
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
	// Those that were paid are on their way to the payers.
	if len(open) != 4 || open[0].ID != late || open[0].State != "asked" || open[0].Account != second || open[0].AskedBy != "olga" ||
		open[1].State != "paid" {
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

// A refund is short in the bank's clearing account from the day it is paid until
// somebody says that the payer has it, or that it came back.
func TestARefundIsOpenUntilItHasEnded(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	had := c.wallet(example).Posted
	c.setClosed(second, true)
	if got := c.code(osmpPay("mkb", "1", second, "100.00")); got != 0 {
		t.Fatalf("the payment is %d", got)
	}
	end := func(id int64, how topup.RefundEnd) error {
		return pgx.BeginFunc(t.Context(), c.pool, func(tx pgx.Tx) error {
			return topup.EndRefund(t.Context(), tx, c.book, id, how, "olga", c.clock.now())
		})
	}
	paid := func(ask topup.RefundAsk) int64 {
		t.Helper()
		ask.Partner, ask.Reason, ask.By = "mkb", "r", "olga"
		id, err := c.askRefund(ask)
		c.must(err)
		if err := end(id, topup.Given); !errors.Is(err, topup.ErrNotPaid) {
			t.Errorf("one that was not paid yet was given: %v", err)
		}
		c.must(c.payRefund(id, "pavel"))
		return id
	}
	open := func(want ...int64) (list []topup.Break) {
		t.Helper()
		all, err := topup.Breaks(t.Context(), c.pool, "mkb", c.clock.now())
		c.must(err)
		var ids []int64
		var sum money.Amount
		for _, b := range all {
			if b.State == topup.OnItsWay {
				list, ids, sum = append(list, b), append(ids, b.ID), sum-b.Ours
			}
		}
		if !slices.Equal(ids, want) {
			t.Errorf("on their way are %+v, want %d", list, want)
		}
		c.must(c.endpoints.MeasureOpen(t.Context()))
		if n, roubles := c.metric("zvonok_topup_open", "refund"), c.metric("zvonok_topup_open_roubles", "refund"); n != float64(len(want)) ||
			roubles != float64(sum)/float64(money.Rouble) {
			t.Errorf("%v refunds of %v roubles are on their way by the metrics", n, roubles)
		}
		c.sound()
		return list
	}

	ofWallet, ofPayment := paid(topup.RefundAsk{Account: example, Amount: 40_00}), paid(topup.RefundAsk{Txn: "1"})
	list := open(ofWallet, ofPayment)
	if len(list) != 2 || list[0].Ours != -40_00 || list[1].Txn != "1" || list[1].Ours != -100_00 || list[0].Disputed {
		t.Errorf("on their way are %+v", list)
	}
	// The payment of 100 roubles, the refund of it and that of 40.
	if got := c.clearing("mkb"); got != -40_00 {
		t.Errorf("the clearing account holds %s", got)
	}
	c.clock.add(11 * 24 * time.Hour)
	if list := open(ofWallet, ofPayment); len(list) != 2 || !list[0].Disputed {
		t.Errorf("after eleven days: %+v", list)
	}

	c.must(end(ofWallet, topup.Given))
	open(ofPayment)
	c.must(end(ofPayment, topup.Returned))
	open()
	for _, how := range []topup.RefundEnd{topup.Given, topup.Returned} {
		if err := end(ofWallet, how); !errors.Is(err, topup.ErrNotPaid) {
			t.Errorf("once more %s: %v", how, err)
		}
	}
	if got := c.wallet(example).Posted; got != had-40_00 {
		t.Errorf("the wallet has %s", got)
	}
	// What is left is the payment, which no registry has come for.
	if got := c.clearing("mkb"); got != 100_00 {
		t.Errorf("the clearing account holds %s", got)
	}

	// What came back is where it was, and may go again, elsewhere or to the payer.
	again := paid(topup.RefundAsk{Txn: "1"})
	open(again)
	c.must(end(again, topup.Returned))
	c.setClosed(second, false)
	c.inTx(func(tx pgx.Tx) error {
		return topup.ReleasePayment(t.Context(), tx, c.book, topup.Release{Partner: "mkb", Txn: "1", Account: second, By: "olga"}, c.clock.now())
	})
	other := paid(topup.RefundAsk{Account: second})
	c.must(end(other, topup.Returned))
	if got := c.wallet(second).Posted; got != 100_00 {
		t.Errorf("the second wallet has %s", got)
	}
	if err := end(paid(topup.RefundAsk{Account: second, Amount: 1_00}), "lost"); err == nil {
		t.Error("a refund ended in no way there is")
	}
	all, err := topup.Refunds(t.Context(), c.pool, true)
	c.must(err)
	var states []string
	for _, r := range all {
		states = append(states, r.State)
	}
	if want := []string{"paid", "returned", "returned", "returned", "given"}; !slices.Equal(states, want) || all[4].EndedBy != "olga" {
		t.Errorf("the refunds are %v, want %v", states, want)
	}
	c.sound()
	// A word without a posting is found.
	c.exec(`UPDATE topup.refund SET state = 'given', ended_by = 'x', ended_at = now(), end_event = 1 WHERE state = 'paid'`)
	report, err := ledger.Verify(t.Context(), c.pool, topup.Checks()...)
	c.must(err)
	if report.OK() {
		t.Error("the books are right although a refund ended without a posting")
	}
}
