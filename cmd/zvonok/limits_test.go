package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
	"zvonok/gateway/subscription"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

// Pain 5 and "Live limit explainer" of smpp.md: `zvonok operators`, asked of
// running gateways, says of each operator what limits it, in words that its
// engineer needs, in the table and as JSON.
func TestOperatorsSaysWhatLimitsEachOfARunningGateway(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nowhere := closed.Addr().String()
	closed.Close()

	const clock = `\d\d:\d\d:\d\d`
	backlog := `; backlog \d+(, clears ` + clock + `)?$`
	cases := []struct {
		name      string
		behaviour *smpptest.Behaviour // nil: nobody listens there
		settings  string
		messages  int
		limit     carrier.Limit
		says      string // the explanation
	}{
		{"idle", &smpptest.Behaviour{}, `rate = 50`, 0, carrier.LimitNothing, `^not limited$`},
		{"rate", &smpptest.Behaviour{}, `rate = 1`, 90, carrier.LimitRate, `^limited by operator rate 1/s` + backlog},
		{
			"window", &smpptest.Behaviour{AnswerDelay: time.Second}, "rate = 500\nwindow = 1", 90, carrier.LimitWindow,
			`^limited by window 1 on 1 binds at a round trip of 1(\.\d+)?s: (1\.0|0\.\d)/s` + backlog,
		},
		{
			"throttled", &smpptest.Behaviour{Refuse: map[string]smpp.Status{"7": smpp.StatusThrottled}}, `rate = 50`, 20,
			carrier.LimitOperator, `^throttled by the operator \(ESME_RTHROTTLED\) until ` + clock + `, then \d+/s of 50/s` + backlog,
		},
		{
			"slowed", &smpptest.Behaviour{Rate: 2}, `rate = 50`, 90, carrier.LimitOperator,
			`^slowed by the operator \(ESME_RTHROTTLED\) to \d+/s of 50/s` + backlog,
		},
		{
			"failing", &smpptest.Behaviour{Errors: 1}, `rate = 50`, 20, carrier.LimitOperator,
			`^circuit open after system errors \(ESME_RSYSERR\) until ` + clock,
		},
		{
			"refusing", &smpptest.Behaviour{RefuseBinds: 1 << 30, RefuseBindStatus: smpp.StatusInvalidPassword}, `rate = 50`, 5,
			carrier.LimitOperator, `^not bound: bind refused: ESME_RINVPASWD; backlog 5$`,
		},
		{"down", nil, `rate = 50`, 5, carrier.LimitOperator, `^not bound: no connection; backlog 5$`},
	}
	dir := dataFolder(t)
	url := pgtest.NewURL(t)
	var settings strings.Builder
	fmt.Fprintf(&settings, "data_dir = %q\n[database]\nurl = %q\n[http]\nlisten = \"127.0.0.1:0\"\n[smpp]\nlisten = \"127.0.0.1:0\"\n", dir, url)
	for i, c := range cases {
		address := nowhere
		if c.behaviour != nil {
			smsc, err := smpptest.Start(smpptest.Config{
				OperatorConfig: smpptest.OperatorConfig{Behaviour: *c.behaviour}, SystemID: "school", Password: "secret",
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = smsc.Close(context.Background()) })
			address = smsc.Addr()
		}
		// Each operator has its own numbers, so that nothing fails over.
		fmt.Fprintf(&settings, "[[operator]]\nname = %q\nmode = \"client\"\naddress = %q\nsystem_id = \"school\"\npassword = \"secret\"\nprefixes = [\"7900000%02d\"]\n%s\n",
			c.name, address, i, c.settings)
	}
	fmt.Fprintf(&settings, "[[operator]]\nname = \"awaited\"\nmode = \"server\"\nsystem_id = \"gate\"\npassword = \"secret\"\nprefixes = [\"7900000%02d\"]\n", len(cases))
	write := func(name, admin string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(settings.String()+"[admin]\nlisten = \""+admin+"\"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	launch := func(name string) (*program, func(args ...string) (string, string, int)) {
		t.Helper()
		p := start(t, dir, "serve", "--config", write(name+"-serve.toml", "127.0.0.1:0"))
		asking := write(name+"-ask.toml", p.ready.Admin)
		return p, func(args ...string) (string, string, int) {
			return command(t, dir, append([]string{"operators", "--config", asking}, args...)...)
		}
	}
	_, ask := launch("first")
	for i, c := range cases {
		enqueueFor(t, url, c.name, i, c.messages)
	}
	lines := func(ask func(args ...string) (string, string, int)) map[string]operatorLine {
		t.Helper()
		out, errs, code := ask("--json")
		var all []operatorLine
		if err := json.Unmarshal([]byte(out), &all); err != nil || code != 0 {
			t.Fatalf("exit %d, %v\n%s%s", code, err, out, errs)
		}
		byName := map[string]operatorLine{}
		for _, l := range all {
			byName[l.Operator] = l
		}
		return byName
	}
	type wanted struct {
		limit carrier.Limit
		says  *regexp.Regexp
	}
	left := map[string]wanted{"awaited": {carrier.LimitOperator, regexp.MustCompile(`^not bound: the operator has not bound to us$`)}}
	for _, c := range cases {
		left[c.name] = wanted{c.limit, regexp.MustCompile(c.says)}
	}
	var last map[string]operatorLine
	defer func() {
		for name := range left {
			t.Logf("%s: %+v", name, last[name])
		}
	}()
	eventually(t, "each operator to show its limit", func() bool {
		last = lines(ask)
		for name, want := range left {
			if l := last[name]; l.LimitedBy == string(want.limit) && want.says.MatchString(l.Explanation) {
				t.Logf("%-10s %-12s %s", name, l.LimitedBy, l.Explanation)
				delete(left, name)
			}
		}
		return len(left) == 0
	})
	for name, check := range map[string]func(l operatorLine) bool{
		"rate":     func(l operatorLine) bool { return l.Rate == 1 && l.Queue > 0 && l.OldestSeconds > 0 && l.BindsUp == 1 },
		"window":   func(l operatorLine) bool { return l.Window == 1 && l.RoundTrip >= 1 },
		"refusing": func(l operatorLine) bool { return l.BindsUp == 0 && strings.Contains(l.LastBindFail, "RINVPASWD") },
	} {
		if !check(last[name]) {
			t.Errorf("%s: %+v", name, last[name])
		}
	}
	out, errs, code := ask()
	if code != 0 || !strings.HasPrefix(out, "OPERATOR") || strings.Count(out, "\n") != len(cases)+2 {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	for _, want := range []string{`(?m)^idle +1/1 +0/50 .* not limited$`, `(?m)^down +0/1 .* not bound: no connection; backlog 5$`} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("%s is not in\n%s", want, out)
		}
	}

	// Another process has no lease to any of the binds.
	_, askSecond := launch("second")
	eventually(t, "the second process to stand by", func() bool {
		l := lines(askSecond)["idle"]
		return l.Explanation == "standing by: another process is bound and sends" && l.BindsElsewhere == 1 && l.BindsUp == 0
	})

	// Nothing can be stored, so results and receipts pile up.
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `BEGIN; LOCK TABLE delivery.part IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	enqueueFor(t, url, "idle", 0, 90)
	eventually(t, "the database to be named", func() bool {
		l := lines(ask)["idle"]
		return l.LimitedBy == string(carrier.LimitDatabase) &&
			regexp.MustCompile(`^limited by the database: \d+ messages and \d+ receipts wait for it`).MatchString(l.Explanation)
	})
	if _, err := conn.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}

	// Nobody to ask.
	out, errs, code = command(t, dir, "operators", "--config", write("nobody.toml", nowhere))
	if code != 1 || !strings.Contains(errs, "is zvonok serve running with these settings?") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

// enqueueFor stores messages to numbers of the operator's own.
func enqueueFor(t *testing.T, url, operator string, place, n int) {
	t.Helper()
	if n == 0 {
		return
	}
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: pg.RiverSchema})
	if err != nil {
		t.Fatal(err)
	}
	desk := delivery.NewDesk(client, func(phone.Number) []string { return []string{operator} })
	drafts := make([]delivery.Draft, n)
	for i := range drafts {
		drafts[i] = delivery.Draft{
			Event: 1, Topic: "pass", Channel: subscription.SMS, Address: fmt.Sprintf("7900000%02d%02d", place, i),
			Priority: carrier.Urgent, Again: delivery.Fresh, Expires: time.Now().Add(time.Hour), Body: "Entry 08:15",
		}
	}
	if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		_, err := desk.Enqueue(t.Context(), tx, time.Now(), drafts)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
