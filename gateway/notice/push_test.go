package notice

import (
	"testing"
	"time"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/gateway/delivery"
	"zvonok/gateway/push"
	"zvonok/gateway/subscription"
)

// who finds a representative by the phone.
func (b *bench) who(phone string) access.RepresentativeID {
	b.t.Helper()
	var id access.RepresentativeID
	if err := b.pool.QueryRow(b.t.Context(), `SELECT id FROM access.representative WHERE phone = $1`, phone).Scan(&id); err != nil {
		b.t.Fatal(err)
	}
	return id
}

// browser gives a phone's owner a browser.
func (b *bench) browser(phone string) access.RepresentativeID {
	b.t.Helper()
	who := b.who(phone)
	b.exec(`INSERT INTO push.endpoint (representative_id, url, p256dh, auth, device, registered_at)
		VALUES ($1, 'https://fcm.googleapis.com/' || $1::bigint, repeat('x', 65)::bytea, repeat('x', 16)::bytea, '', now())`, who)
	return who
}

func (b *bench) wantsNow(phone, child, channel string) {
	b.t.Helper()
	b.wants(phone, child, channel, "now")
}

// R51, D2: push is a channel of its own, in the reader's letters, since only an
// SMS is cheaper in Latin ones.
func TestAPassIsShownInABrowserWhereItIsWantedAndThereIsOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`DELETE FROM subscription.subscription WHERE channel <> 'push'`)
	b.wantsNow("79000000002", "masha", "push") // reads SMS in Latin letters
	b.wantsNow("79000000003", "masha", "push") // has no browser
	father := b.browser("79000000002")
	b.tell(b.pass("b1", morning, "masha"))
	expect(t, "messages", b.sent(), "push "+push.Address(father)+" Вход 08:15 Маша П. Баланс 0,00 р")
	expect(t, "verdicts", b.verdicts(),
		"masha 79000000001  not_subscribed", "masha 79000000002 push told", "masha 79000000003 push no_address")
}

func TestPushGivesWayToTheNextChannelAndTakesOverFromOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`DELETE FROM subscription.subscription`)
	b.wantsNow("79000000001", "petya", "push")
	b.wantsNow("79000000002", "masha", "sms")
	b.order("79000000001", "push", "sms")
	b.order("79000000002", "sms", "push")
	mother := b.browser("79000000001")
	b.tell(b.pass("b1", morning, "petya", "masha"))
	expect(t, "messages", b.sent(),
		"push "+push.Address(mother)+" Вход 08:15 Петя П. Баланс 0,00 р", "sms 79000000002 Vkhod 08:15 Masha P. Balans 0,00 r")
	var spares int
	if err := b.pool.QueryRow(t.Context(), `SELECT count(*) FROM delivery.spare WHERE channel = 'sms' AND body = 'Вход 08:15 Петя П. Баланс 0,00 р'`).Scan(&spares); err != nil {
		t.Fatal(err)
	}
	if spares != 1 {
		t.Errorf("%d spares by SMS", spares)
	}
	// A phone that takes nothing any more: its owner's browser takes over.
	father := b.browser("79000000002")
	if err := delivery.OptOut(t.Context(), b.pool, subscription.SMS, "79000000002", "refused bulk SMS", morning); err != nil {
		t.Fatal(err)
	}
	b.now = morning.Add(time.Minute)
	b.tell(b.tap("masha", door.Out, b.now, b.now))
	got := b.sent()
	if last := got[len(got)-1]; last != "push "+push.Address(father)+" Выход 08:16 Маша П." {
		t.Errorf("the last message is %q", last)
	}
}

func TestADigestIsShownInABrowserAsAnSMSWouldTellIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.wants("79000000002", "masha", "push", "day")
	b.wants("79000000003", "masha", "push", "day")
	father := b.browser("79000000002")
	b.visit("masha", at(8, 15), at(14, 5))
	b.now = evening
	b.digests()
	expect(t, "messages", b.sent(), "push "+push.Address(father)+" Маша П. 23.11 08:15-14:05, траты 0,00 р, баланс 0,00 р")
	expect(t, "digests", b.digestVerdicts(), "79000000002 day told", "79000000003 day no_address")
}
