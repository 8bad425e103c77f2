package notice

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
)

// stopped lets a child ask for more than its parents allow, and returns the job
// that tells of it.
func (b *bench) stopped(child string) meal.Stopped {
	b.t.Helper()
	ctx := b.t.Context()
	limit := money.Amount(50_00)
	err := pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
		if err := meal.SetLimit(ctx, tx, b.people[child], &limit, int64(b.who("79000000001")), b.now); err != nil {
			return err
		}
		ids, err := ledger.NextEventIDs(ctx, tx, 1)
		if err != nil {
			return err
		}
		_, err = meal.NewCanteen(ledger.NewBook(b.jobs), b.jobs).Sell(ctx, tx, []meal.Sale{{
			Event: ids[0], Person: b.people[child], Kind: meal.Buffet, Total: 70_00, At: b.now, Device: 2, Seq: 1,
		}})
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	var job meal.Stopped
	if err := b.pool.QueryRow(ctx, `SELECT args FROM river.river_job WHERE kind = 'meal_stopped'`).Scan(&job); err != nil {
		b.t.Fatal(err)
	}
	return job
}

// A purchase that a rule of the parents stopped is news to those who want the
// child's purchases told, once, and a line of the digest.
func TestAStoppedPurchaseIsToldToWhoWantsPurchases(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, want := range [][3]string{{"79000000001", "masha", "sms"}, {"79000000001", "masha", "email"}, {"79000000003", "masha", "sms"}} {
		b.exec(`INSERT INTO subscription.subscription (child_id, topic, mode, representative_id, channel) VALUES ($1, 'buffet', 'now', $2, $3)`,
			b.people[want[1]], b.who(want[0]), want[2])
	}
	b.now = at(10, 40)
	job := b.stopped("masha")
	b.now = b.now.Add(time.Second)
	for range 2 {
		if err := b.teller.tellStopped(t.Context(), job); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, "messages", b.sent(),
		"email mother@example.org Покупка отклонена: Маша",
		"sms 79000000001 Покупка 10:40 отклонена, Маша П.: дневной лимит",
		"sms 79000000003 Purchase 10:40 refused, Masha P.: daily limit")
	expect(t, "verdicts", b.verdicts(),
		"masha 79000000001 email told", "masha 79000000001 sms told", "masha 79000000002  not_subscribed",
		"masha 79000000003 sms told")
}

// D14: whose consent is to visits alone hears nothing of purchases.
func TestAStoppedPurchaseIsNotToldWithoutAConsentToMeals(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`UPDATE access.consent SET meals = false`)
	b.now = at(10, 40)
	job := b.stopped("masha")
	if err := b.teller.tellStopped(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	expect(t, "messages", b.sent())
	expect(t, "verdicts", b.verdicts(),
		"masha 79000000001  not_consented", "masha 79000000002  not_consented", "masha 79000000003  not_consented")
}
