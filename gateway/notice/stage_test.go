package notice

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
)

// order sets a phone's order of channels, SMS first.
func (b *bench) order(phone string, channels ...string) {
	b.t.Helper()
	b.exec(`
		INSERT INTO subscription.fallback (representative_id, position, channel, patience)
		SELECT r.id, c.n, c.channel, '5 minutes' FROM access.representative AS r,
			unnest($2::text[]) WITH ORDINALITY AS c (channel, n) WHERE r.phone = $1`, phone, channels)
}

// prepare makes the world in which a pass of a child is refused for a reason.
var prepare = map[Reason]struct {
	child string
	phone string // of whom the reason is told; "-" for nobody
	sql   string
}{
	Told:              {"petya", "79000000001", ``},
	NoListener:        {"alla", "-", ``},
	NotConsented:      {"petya", "79000000001", `UPDATE access.consent SET visits = false, meals = true`},
	NoConsent:         {"petya", "79000000001", `UPDATE access.consent SET since = '2027-01-01' WHERE until IS NULL`},
	ConsentExpired:    {"ivan", "79000000004", ``},
	ConsentWithdrawn:  {"petya", "79000000001", `UPDATE access.consent SET withdrawn_at = '2026-11-01'`},
	NotRepresentative: {"masha", "79000000003", `UPDATE access.guardian SET since = '2027-01-01' WHERE role = 'trusted'`},
	Removed:           {"masha", "79000000003", `UPDATE access.guardian SET revoked_at = '2026-11-01' WHERE role = 'trusted'`},
	Expired:           {"masha", "79000000003", `UPDATE access.guardian SET until = '2026-11-01' WHERE role = 'trusted'`},
	NotSubscribed:     {"vera", "79000000005", ``},
	InDigest: {"vera", "79000000005", `INSERT INTO subscription.subscription (child_id, topic, mode, representative_id, channel)
		SELECT p.id, 'hot', m.mode, r.id, 'sms' FROM ledger.person p, access.representative r, unnest('{day,week}'::text[]) m (mode)
		WHERE p.code = 'vera' AND r.phone = '79000000005'`},
	NoAddress: {"vera", "79000000005", `INSERT INTO subscription.subscription (child_id, topic, mode, representative_id, channel)
		SELECT p.id, 'pass', 'now', r.id, 'email' FROM ledger.person p, access.representative r
		WHERE p.code = 'vera' AND r.phone = '79000000005'`},
	Stale:       {"petya", "79000000001", `UPDATE ledger.organisation SET pass_life = '1 microsecond'`},
	Moved:       {"petya", "79000000001", `UPDATE ledger.organisation SET leave_wait = '5 minutes'`},
	OptedOut:    {"petya", "79000000001", `INSERT INTO delivery.address (channel, address, opted_out_at) VALUES ('sms', '79000000001', now())`},
	Unreachable: {"petya", "79000000001", `INSERT INTO delivery.address (channel, address, suppressed_at) VALUES ('sms', '79000000001', now())`},
	Unconfirmed: {"petya", "79000000001", `UPDATE access.representative SET doubt = 'sim', doubted_at = now() WHERE phone = '79000000001'`},
	Capped: {"petya", "79000000001", `INSERT INTO delivery.quota (day, channel, address, sent, held)
		VALUES ('2026-11-23', 'sms', '79000000001', 30, 1)`},
}

func TestEachReasonIsLeftByItsStage(t *testing.T) {
	t.Parallel()
	for _, reason := range Reasons() {
		if reason == Nothing {
			continue // of digests: TestNothingHappenedAndThereIsNoDigest
		}
		t.Run(string(reason), func(t *testing.T) {
			t.Parallel()
			world, ok := prepare[reason]
			if !ok {
				t.Fatal("the reason has no test")
			}
			b := setup(t)
			if world.sql != "" {
				b.exec(world.sql)
			}
			job := b.pass("b1", morning, world.child)
			b.now = morning.Add(time.Second)
			if reason == Moved {
				job = b.tap(world.child, door.Out, morning.Add(time.Minute), morning.Add(time.Minute))
				b.pass("b2", morning.Add(3*time.Minute), world.child)
				b.now = morning.Add(7 * time.Minute)
			}
			b.tell(job)
			found := slices.ContainsFunc(b.verdicts(), func(v string) bool {
				return strings.HasPrefix(v, world.child+" "+world.phone+" ") && strings.HasSuffix(v, " "+string(reason))
			})
			if !found {
				t.Errorf("verdicts are %q, want %s of %s", b.verdicts(), reason, world.phone)
			}
			b.explained("reason-"+string(reason), job.EventIDs[0], job.From)
		})
	}
}

func TestAChildLeavingAKindergartenAloneAlarmsItsLegalRepresentatives(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`UPDATE ledger.organisation SET kind = 'kindergarten'`)
	b.exec(`DELETE FROM subscription.subscription`) // whatever they have subscribed to
	b.exec(`INSERT INTO delivery.quota (day, channel, address, sent) VALUES ('2026-11-23', 'sms', '79000000001', 99)`)
	job := b.tap("masha", door.Out, morning, morning)
	b.now = morning.Add(2 * time.Hour) // the reader had no network
	b.tell(job)
	b.tell(job)
	expect(t, "messages", b.sent(),
		"sms 79000000001 Тревога! 08:15 Маша П.: выход не по списку. Позвоните в сад",
		"email mother@example.org Тревога 08:15: Маша",
		"sms 79000000002 Trevoga! 08:15 Masha P.: vykhod ne po spisku. Pozvonite v sad")
	// The same child held back at the gate a minute later is the same alarm.
	again := b.tap("masha", door.Out, morning.Add(5*time.Minute), morning.Add(5*time.Minute))
	b.tell(again)
	if n := len(b.sent()); n != 3 {
		t.Errorf("%d messages after the second try, want 3", n)
	}
}

func TestAnAlarmOfYesterdayIsNoNews(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`UPDATE ledger.organisation SET kind = 'kindergarten'`)
	job := b.tap("masha", door.Out, morning, morning)
	b.now = morning.Add(alarmLife)
	b.tell(job)
	expect(t, "messages", b.sent())
}

func TestASiblingJoinsTheMessageThatStillWaits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.tell(b.pass("b1", morning, "petya"))
	b.now = morning.Add(time.Minute)
	second := b.pass("b1", b.now, "masha")
	b.tell(second)
	if !slices.Contains(b.sent(), "sms 79000000001 Вход 08:15 Петя П., Маша П.") {
		t.Errorf("messages:\n%s\nwant one of both", strings.Join(b.sent(), "\n"))
	}
	if !slices.Contains(b.about(), "sms 79000000001 petya,masha") {
		t.Errorf("the messages are about:\n%s", strings.Join(b.about(), "\n"))
	}
	b.explained("sibling-joins", second.EventIDs[0], second.From)
	// The same child once more is news of its own.
	b.now = morning.Add(2 * time.Minute)
	b.tell(b.pass("b1", b.now, "petya"))
	if !slices.Contains(b.sent(), "sms 79000000001 Вход 08:17 Петя П. Баланс 0,00 р") {
		t.Errorf("messages:\n%s\nwant the second entry by itself", strings.Join(b.sent(), "\n"))
	}
}

// A message that two siblings share from the start takes a third one, and loses none.
func TestAThirdSiblingJoinsTheMessageOfTwo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, query := range []string{
		`INSERT INTO access.guardian (child_id, representative_id, role, since)
			SELECT $1, id, 'legal', '2026-09-01' FROM access.representative WHERE phone = '79000000001'`,
		`INSERT INTO access.consent (child_id, representative_id, visits, meals, form, given_on, since)
			SELECT $1, id, true, true, 'registry', '2026-09-01', '2026-09-01' FROM access.representative WHERE phone = '79000000001'`,
	} {
		b.exec(query, b.people["vera"])
	}
	b.wantsNow("79000000001", "vera", "sms")
	b.tell(b.pass("b1", morning, "masha", "petya"))
	b.now = morning.Add(time.Minute)
	b.tell(b.pass("b1", b.now, "vera"))
	expect(t, "the mother's SMS", b.sentTo("79000000001"), "sms 79000000001 Вход 08:15 Маша П., Петя П., Вера Б.")
}

// D14: a message that siblings share is about each of them: who may no longer know
// of one gets it neither by its channel nor by the next, and reads it nowhere.
func TestAMessageOfSiblingsIsKeptBackForEachOfThem(t *testing.T) {
	t.Parallel()
	for _, child := range []string{"masha", "petya"} {
		t.Run(child, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.exec(`DELETE FROM subscription.subscription WHERE channel = 'email'`)
			b.order("79000000001", "sms", "email")
			b.tell(b.pass("b1", morning, "masha", "petya"))
			b.routes = nil // of the second message, which goes by the next channel at once
			b.now = morning.Add(2 * time.Minute)
			b.tell(b.pass("b2", b.now, "masha", "petya"))
			b.exec(`UPDATE access.consent SET withdrawn_at = $1 WHERE child_id = $2`, b.now, b.people[child])
			if err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
				return Silence(t.Context(), tx, b.people[child], b.now)
			}); err != nil {
				t.Fatal(err)
			}
			mother := access.Representative{ID: b.who("79000000001"), Phone: "79000000001"}
			messages, _, err := Inbox(t.Context(), b.pool, mother, []string{"79000000001", "mother@example.org"}, delivery.InboxPage{},
				b.now, 10)
			if err != nil {
				t.Fatal(err)
			}
			channels := map[string]int{}
			for _, m := range messages {
				channels[m.Channel]++
				if !m.Withheld || m.State != delivery.Recalled && m.State != delivery.Failed {
					t.Errorf("%s %d is %s, withheld: %t: %q", m.Channel, m.ID, m.State, m.Withheld, m.Subject+m.Text)
				}
			}
			if channels["sms"] != 2 || channels["email"] != 1 {
				t.Errorf("the messages are %v, want two SMS and a letter", channels)
			}
		})
	}
}

// Two messages of one batch may find the same one waiting: the second would write
// over what the first has made it tell.
func TestAWaitingMessageIsJoinedByOneMessageOfABatch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.tell(b.pass("b1", morning, "petya"))
	b.now = morning.Add(3 * time.Minute)
	first, again := b.pass("b1", morning.Add(time.Minute), "masha"), b.pass("b1", b.now, "masha")
	if _, err := b.teller.tellPasses(t.Context(), []door.Passed{first, again}); err != nil {
		t.Fatal(err)
	}
	expect(t, "the mother's SMS", b.sentTo("79000000001"),
		"sms 79000000001 Вход 08:15 Петя П., Маша П.", "sms 79000000001 Вход 08:18 Маша П. Баланс 0,00 р")
}

// sentTo lists the SMS to a phone.
func (b *bench) sentTo(phone string) []string {
	b.t.Helper()
	return slices.DeleteFunc(b.sent(), func(m string) bool { return !strings.HasPrefix(m, "sms "+phone) })
}

// The cap is asked before anything is merged, and knows what will be: of a phone's
// day, news that one message tells takes one place, and none where it joins one
// that still waits.
func TestWhatSiblingsShareTakesOnePlaceOfThePhonesDay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`UPDATE ledger.organisation SET merge_wait = '60 seconds'`)
	b.exec(`INSERT INTO delivery.quota (day, channel, address, sent) VALUES ('2026-11-23', 'sms', '79000000001', 1)`)
	b.tell(b.pass("b1", morning, "masha", "petya")) // the second of three
	b.now = morning.Add(2 * time.Minute)
	b.tell(b.pass("b2", b.now, "petya")) // the last one
	b.now = morning.Add(3 * time.Minute)
	b.tell(b.pass("b2", b.now, "masha")) // joins it
	b.exec(`UPDATE delivery.delivery SET state = 'sending', attempt = 1`)
	b.now = morning.Add(5 * time.Minute)
	b.tell(b.pass("b1", b.now, "masha"))
	b.now = morning.Add(7 * time.Minute)
	b.tell(b.pass("b1", b.now, "masha", "petya"))
	expect(t, "the mother's SMS", b.sentTo("79000000001"),
		"sms 79000000001 Вход 08:15 Маша П., Петя П.", "sms 79000000001 Вход 08:17 Петя П., Маша П.",
		"sms 79000000001 Лимит SMS на сегодня исчерпан. Остальное придёт в вечерней сводке")
	var waits int
	if err := b.pool.QueryRow(t.Context(), `
		SELECT count(*) FROM river.river_job AS j JOIN delivery.delivery AS d ON j.args->'ids' @> to_jsonb(d.id)
		WHERE d.body LIKE 'Лимит%' AND j.scheduled_at = d.at + interval '60 seconds'`).Scan(&waits); err != nil || waits != 0 {
		t.Errorf("the word that the cap is reached waits for siblings (%d, %v)", waits, err)
	}
}

func TestASiblingDoesNotJoinAMessageThatIsBeingSent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.tell(b.pass("b1", morning, "petya"))
	b.exec(`UPDATE delivery.delivery SET state = 'sending', attempt = 1`)
	b.now = morning.Add(time.Minute)
	b.tell(b.pass("b1", b.now, "masha"))
	if sent := b.sent(); !slices.Contains(sent, "sms 79000000001 Вход 08:15 Петя П. Баланс 0,00 р") ||
		!slices.Contains(sent, "sms 79000000001 Вход 08:16 Маша П. Баланс 0,00 р") {
		t.Errorf("messages:\n%s", strings.Join(sent, "\n"))
	}
}

func TestAPhoneOfSeveralChildrenWaitsForSiblingsWhereTheSchoolHasSetIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`UPDATE ledger.organisation SET merge_wait = '60 seconds'`)
	job := b.pass("b1", morning, "masha")
	b.tell(job)
	b.explained("sibling-awaited", job.EventIDs[0], job.From)
	rows, err := b.pool.Query(t.Context(), `
		SELECT d.address || ' ' || extract(epoch FROM j.scheduled_at - $1)::int
		FROM river.river_job AS j JOIN delivery.delivery AS d ON j.args->'ids' @> to_jsonb(d.id)
		WHERE d.channel = 'sms' AND j.kind = 'sms' AND j.scheduled_at > $1 ORDER BY 1`, morning)
	if err != nil {
		t.Fatal(err)
	}
	waiting, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	// The father and the grandmother have one child each.
	if !slices.Contains(waiting, "79000000001 60") {
		t.Errorf("waiting are %q, want the mother's for 60 seconds", waiting)
	}
	for _, w := range waiting {
		if strings.HasSuffix(w, " 60") && !strings.HasPrefix(w, "79000000001") {
			t.Errorf("%s waits, too", w)
		}
	}
}

func TestTheNextChannelTakesOverFromAPhoneThatTakesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.order("79000000001", "sms", "email")
	if err := delivery.OptOut(t.Context(), b.pool, subscription.SMS, "79000000001", "refused bulk SMS", morning); err != nil {
		t.Fatal(err)
	}
	job := b.pass("b1", morning, "petya")
	b.tell(job)
	expect(t, "messages", b.sent(), "email mother@example.org Вход 08:15: Петя")
	b.explained("fallback-at-once", job.EventIDs[0], job.From)
	expect(t, "verdicts", b.verdicts(), "petya 79000000001 email told", "petya 79000000001 sms opted_out")
}

func TestAMessageHasASpareForTheNextChannelUnlessThatTellsItAnyway(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.order("79000000001", "sms", "email")
	b.tell(b.pass("b1", morning, "petya"))
	b.tell(b.pass("b1", morning, "masha")) // the mother gets a letter about her at once
	rows, err := b.pool.Query(t.Context(), `
		SELECT s.address || ' ' || s.subject || ' ' || s.patience FROM delivery.spare AS s`)
	if err != nil {
		t.Fatal(err)
	}
	spares, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if len(spares) != 1 || !strings.HasPrefix(spares[0], "mother@example.org Вход 08:15: Петя") {
		t.Errorf("spares are %q", spares)
	}
}

// Siblings share an SMS also where the reader is told of one of them by the next
// channel anyway: that one falls back alone. News that falls back joins no message
// that does not.
func TestTheSpareOfASharedMessageTellsWhatTheNextChannelHasNotTold(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.order("79000000001", "sms", "email")
	spares := func() []string {
		t.Helper()
		rows, err := b.pool.Query(t.Context(), `SELECT subject FROM delivery.spare ORDER BY delivery_id`)
		if err != nil {
			t.Fatal(err)
		}
		list, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	b.tell(b.pass("b1", morning, "masha", "petya")) // of Masha a letter is sent at once
	expect(t, "the mother's SMS", b.sentTo("79000000001"), "sms 79000000001 Вход 08:15 Маша П., Петя П.")
	expect(t, "spares", spares(), "Вход 08:15: Петя")
	b.now = morning.Add(2 * time.Minute)
	b.tell(b.pass("b2", b.now, "masha"))
	b.tell(b.pass("b2", b.now, "petya"))
	expect(t, "the mother's SMS", b.sentTo("79000000001"), "sms 79000000001 Вход 08:15 Маша П., Петя П.",
		"sms 79000000001 Вход 08:17 Маша П. Баланс 0,00 р", "sms 79000000001 Вход 08:17 Петя П. Баланс 0,00 р")
	expect(t, "spares", spares(), "Вход 08:15: Петя", "Вход 08:17: Петя")
}

// A channel that takes nothing is no next one: the one after it is.
func TestTheNextChannelIsOneThatTakesMessages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`DELETE FROM subscription.subscription`)
	b.wantsNow("79000000001", "petya", "push")
	b.order("79000000001", "push", "sms", "email")
	if err := delivery.OptOut(t.Context(), b.pool, subscription.SMS, "79000000001", "stop", morning); err != nil {
		t.Fatal(err)
	}
	b.tell(b.pass("b1", morning, "petya")) // no browser is registered
	expect(t, "messages", b.sent(), "email mother@example.org Вход 08:15: Петя")
	expect(t, "verdicts", b.verdicts(), "petya 79000000001 email told", "petya 79000000001 push no_address")
}
