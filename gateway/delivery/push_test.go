package delivery_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/push"
	"zvonok/gateway/push/pushtest"
	"zvonok/gateway/subscription"
)

// subscribe makes a recipient with so many browsers.
func (p *post) subscribe(phone string, browsers int) (access.RepresentativeID, []*pushtest.Browser) {
	p.t.Helper()
	ctx := context.Background()
	var who access.RepresentativeID
	if err := p.pool.QueryRow(ctx, `
		INSERT INTO access.representative (phone, family_name, given_name) VALUES ($1, 'Петрова', 'Ольга') RETURNING id`,
		phone).Scan(&who); err != nil {
		p.t.Fatal(err)
	}
	list := make([]*pushtest.Browser, browsers)
	for i := range list {
		b := p.service.Subscribe()
		list[i] = b
		if err := pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
			return p.pushes.Register(ctx, tx, who, push.Subscription{Endpoint: b.URL, P256dh: b.P256dh, Auth: b.Auth}, time.Now())
		}); err != nil {
			p.t.Fatal(err)
		}
	}
	return who, list
}

// entry is a pass as a push message.
func entry(who access.RepresentativeID) delivery.Draft {
	return delivery.Draft{
		Event: 1, Representative: who, Topic: "pass", Channel: subscription.Push, Address: push.Address(who), Priority: carrier.Urgent,
		Again: delivery.Fresh, Expires: time.Now().Add(15 * time.Minute), Body: "Вход 08:15 Маша П. Баланс 143,50 р",
	}
}

// shown is what a service worker reads.
type shown struct {
	Body, Tag, Ack string
	At             int64
}

func read(t *testing.T, m pushtest.Message) shown {
	t.Helper()
	var s shown
	if err := json.Unmarshal(m.Payload, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (p *post) acknowledge(token string) int {
	w := httptest.NewRecorder()
	p.pusher.ServeHTTP(w, httptest.NewRequest(http.MethodPost, push.AckPath+token, nil))
	return w.Code
}

func TestAPushMessageShowsWhatAnSMSWouldInEveryBrowserAndIsProvedByOne(t *testing.T) {
	p := setupPost(t)
	who, _ := p.subscribe("79000000001", 2)
	stored := p.enqueue(entry(who))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	messages, err := p.service.Wait(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	p.awaitState(stored[0], delivery.Sent)
	first := read(t, messages[0])
	if first.Body != "Вход 08:15 Маша П. Баланс 143,50 р" || first.Tag != messages[0].Topic || messages[0].Urgency != "high" {
		t.Errorf("%+v, topic %q, urgency %q", first, messages[0].Topic, messages[0].Urgency)
	}
	if ttl := messages[0].TTL; ttl < 13*60 || ttl > 15*60 {
		t.Errorf("the service keeps it for %d s; it is news for 15 minutes", ttl)
	}
	other := []byte(first.Ack)
	if middle := len(other) / 2; other[middle] != 'A' {
		other[middle] = 'A'
	} else {
		other[middle] = 'B'
	}
	for name, token := range map[string]string{
		"none": "", "garbage": "!", "another's": string(other), "a page": strings.Repeat("A", 10_000),
	} {
		if code := p.acknowledge(token); code != http.StatusNotFound {
			t.Errorf("the token %s: %d", name, code)
		}
	}
	p.awaitState(stored[0], delivery.Sent)
	for range 3 {
		if code := p.acknowledge(first.Ack); code != http.StatusNoContent {
			t.Fatalf("the proof is answered %d", code)
		}
	}
	p.awaitState(stored[0], delivery.Delivered)
	trails, err := delivery.Trails(t.Context(), p.pool, stored)
	if err != nil {
		t.Fatal(err)
	}
	if trails[0].Address != "the recipient's browsers" || len(trails[0].Parts) != 2 {
		t.Errorf("the trail is %+v", trails[0])
	}
}

func TestABrowserThatIsGoneIsForgottenAndTheLastOneMakesTheMessageFallBack(t *testing.T) {
	p := setupPost(t)
	who, browsers := p.subscribe("79000000001", 2)
	p.service.Unsubscribe(browsers[0])
	stored := p.enqueue(entry(who))
	p.awaitState(stored[0], delivery.Sent)
	list, err := push.List(t.Context(), p.pool, who)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d browsers are left (%v)", len(list), err)
	}
	p.service.Unsubscribe(browsers[1])
	d := entry(who)
	d.Spare = &delivery.Spare{
		Channel: subscription.Email, Address: "mother@example.org", Patience: 5 * time.Minute, Letter: topUp("").Letter,
	}
	stored = p.enqueue(d)
	p.awaitState(stored[0], delivery.Failed)
	p.await("the letter", func() bool { return len(p.relay.Letters()) == 1 })
	// Nobody is left: the next one fails at once, and falls back, too.
	stored = p.enqueue(d)
	if reason := p.awaitState(stored[0], delivery.Failed); reason != "no browser is registered" {
		t.Errorf("the reason is %q", reason)
	}
	p.await("the next letter", func() bool { return len(p.relay.Letters()) == 2 })
}

// D2: push, then the next channel if there is no proof of delivery in time.
func TestAPushMessageWithoutAProofGoesToTheNextChannelOnce(t *testing.T) {
	p := setupPost(t)
	who, _ := p.subscribe("79000000001", 1)
	d := entry(who)
	d.Spare = &delivery.Spare{Channel: subscription.Email, Address: "mother@example.org", Patience: time.Minute, Letter: topUp("").Letter}
	stored := p.enqueue(d, d)
	p.awaitState(stored[0], delivery.Sent)
	p.awaitState(stored[1], delivery.Sent)
	messages := p.service.Messages()
	var proved shown
	for _, m := range messages {
		if s := read(t, m); s.Tag == messages[0].Topic {
			proved = s
		}
	}
	if code := p.acknowledge(proved.Ack); code != http.StatusNoContent {
		t.Fatal(code)
	}
	// The patience is over: the clock of the rows is put back, the job comes now.
	if _, err := p.pool.Exec(t.Context(), `UPDATE delivery.delivery SET sending_at = sending_at - interval '2 minutes'`); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		p.hurry()
		p.await("the letter", func() bool { return len(p.relay.Letters()) == 1 })
	}
	if n := len(p.relay.Letters()); n != 1 {
		t.Errorf("%d letters, want one: for the message without a proof", n)
	}
}

func TestABrowserWhoseServiceSaysLaterGetsItLaterAndTheOthersNotTwice(t *testing.T) {
	p := setupPost(t)
	who, browsers := p.subscribe("79000000001", 2)
	p.service.Behave(func(r pushtest.Request) pushtest.Answer {
		if r.Browser == browsers[1] {
			return pushtest.Answer{Status: http.StatusTooManyRequests, RetryAfter: "120"}
		}
		return pushtest.Answer{}
	})
	stored := p.enqueue(entry(who))
	if wait := p.awaitRetry("push"); wait < 100*time.Second || wait > 121*time.Second {
		t.Errorf("the next attempt is in %v, the service asked for 2 minutes", wait)
	}
	p.awaitState(stored[0], delivery.Sent)
	p.service.Behave(nil)
	p.hurry()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	messages, err := p.service.Wait(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	if messages[0].Browser != browsers[0] || messages[1].Browser != browsers[1] || p.service.Requests() != 3 {
		t.Errorf("%d requests", p.service.Requests())
	}
}

func TestAPushMessageIsNotSentPastItsLifeNorAfterARecall(t *testing.T) {
	p := setupPost(t)
	who, _ := p.subscribe("79000000001", 1)
	p.service.Behave(func(pushtest.Request) pushtest.Answer {
		return pushtest.Answer{Status: http.StatusServiceUnavailable, RetryAfter: "600"}
	})
	long, short := entry(who), entry(who)
	short.Expires = time.Now().Add(5 * time.Minute)
	stored := p.enqueue(long, short)
	p.awaitState(stored[0], delivery.Queued)
	p.awaitState(stored[1], delivery.Stale)
	p.awaitRetry("push")
	report, err := delivery.Recall(t.Context(), p.pool, nil, delivery.Filter{Topic: "pass"}, time.Now())
	if err != nil || report.Stopped != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	p.awaitState(stored[0], delivery.Recalled)
	p.service.Behave(nil)
	p.hurry()
	p.await("the job to end", func() bool {
		var n int
		if err := p.pool.QueryRow(t.Context(), `SELECT count(*) FROM river.river_job WHERE state NOT IN ('completed')`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n == 0
	})
	if n := len(p.service.Messages()); n != 0 {
		t.Errorf("%d messages were shown", n)
	}
}
