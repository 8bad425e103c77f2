package menu

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/smpp"
	"zvonok/gateway/subscription"
	"zvonok/ledger/meal"
	"zvonok/templates"
	"zvonok/templates/gsm"
	"zvonok/ussd"
)

// patience bounds every wait of a test; nothing that works comes near it, however busy the machine is.
const patience = time.Minute

var update = flag.Bool("update", false, "write the screens of testdata/*.play anew")

// A play is a conversation of a phone with the service:
//
//	# what it is about
//	79000000001 dials *377*888#
//	| Маша П. 143,50 р
//	| Вход 08:15
//
//	presses 1
//	| …
//	(the end)
//
//	(Masha's consent is withdrawn)
//
// Lines with a bar are the screen, exactly. "(the end)" stands under a screen that closes the dialogue. Any other line
// in brackets is a stage direction, done by a function of the same words. With -update the screens are written anew
// and the rest of the play stays.
func TestPlays(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.play")
	if err != nil || len(files) == 0 {
		t.Fatalf("no plays: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".play"), func(t *testing.T) {
			t.Parallel()
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			played := newStage(t).play(string(script))
			if *update {
				if err := os.WriteFile(file, []byte(played), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			compare(t, file, string(script), played)
		})
	}
}

// Issue 4, item 6: a conversation for every screen in both languages. Whoever adds a text adds a play that shows it.
func TestThePlaysShowEveryScreenInBothLanguages(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.play")
	if err != nil {
		t.Fatal(err)
	}
	var screens strings.Builder // as phones show them, without what breaks their lines
	for _, file := range files {
		script, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(script)) {
			if said, ok := strings.CutPrefix(line, "| "); ok {
				fmt.Fprintln(&screens, strings.TrimSpace(said))
			}
		}
	}
	for _, language := range []templates.Language{templates.RU, templates.EN} {
		s := templates.Style{Language: language}
		frame, words, languages := templates.NewUSSDFrame(s), templates.NewUSSDMenu(s), templates.NewUSSDLanguages(s)
		texts := []string{
			frame.More, frame.Back, frame.Exit, frame.Hint, frame.Bye,
			"1 " + words.Meals, "2 " + words.Visits, "3 " + words.SMS, "4 " + words.History, "5 " + words.TopUp,
			"6 " + words.Language, "7 " + words.Access,
			languages.Title, "1 " + languages.Russian, "2 " + languages.English, "3 " + languages.Latin,
			"1 " + templates.USSDSMS{On: true}.Switch(s), "1 " + templates.USSDSMS{}.Switch(s),
		}
		pass := func(in bool) string { // "Маша П. вход 08:15" without the time
			line := templates.USSDChild{Pass: &templates.USSDPass{At: now, In: in}, Now: now}.PassLine(s)
			return line[:strings.LastIndexByte(line, ' ')]
		}
		lines := [][]string{
			strings.Split(templates.Unknown{}.USSD(s), "\n"),
			{pass(true), pass(false), templates.USSDChild{Pass: &templates.USSDPass{}}.PassLine(s)},
			templates.USSDMeals{Days: []templates.USSDMealDay{{Date: now}}, Now: now}.Lines(s),
			templates.USSDVisits{Days: []templates.USSDVisitDay{{Date: now}}}.Lines(s),
			templates.USSDSMS{On: true}.Lines(s), templates.USSDSMS{}.Lines(s),
			templates.USSDHistory{}.Lines(s)[1:],
			templates.USSDTopUp{}.Lines(s), templates.USSDTopUp{Account: "12000014", Payee: "916"}.Lines(s),
			templates.USSDCircle{}.Lines(s),
			templates.USSDCircle{People: []templates.USSDPerson{{Legal: true}, {}}}.Lines(s),
			templates.USSDSent{Sent: true}.Lines(s), templates.USSDSent{}.Lines(s),
		}
		for _, kind := range []string{"topup", "buffet", "hot"} {
			h := templates.USSDHistory{Movements: []templates.USSDMovement{{Kind: kind}}}.Lines(s)[1]
			texts = append(texts, h[strings.LastIndexByte(h, ' '):])
		}
		for _, text := range append(texts, slices.Concat(lines...)...) {
			text = strings.Trim(strings.TrimPrefix(text, templates.Name{}.Short(s)), " :") // whoever's it is
			if !strings.Contains(screens.String(), text) {
				t.Errorf("no play shows %q in %s", text, language)
			}
		}
	}
}

func compare(t *testing.T, file, want, got string) {
	wanted, gotten := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(wanted), len(gotten)) {
		if i >= len(wanted) || i >= len(gotten) || wanted[i] != gotten[i] {
			from := max(0, i-3)
			t.Fatalf("%s:%d: the play goes otherwise:\n%s\n-- as written --\n%s", file, i+1,
				strings.Join(gotten[min(from, len(gotten)):min(i+8, len(gotten))], "\n"),
				strings.Join(wanted[min(from, len(wanted)):min(i+8, len(wanted))], "\n"))
		}
	}
}

// stage is the school with a dialogue server before it.
type stage struct {
	*world
	server  *ussd.Server
	replies chan carrier.Reply
	phone   phone.Number
	session byte
}

func newStage(t *testing.T) *stage { return newStageOf(t, newSchool(t)) }

func newStageOf(t *testing.T, w *world) *stage {
	t.Helper()
	s := &stage{world: w, replies: make(chan carrier.Reply, 16)}
	profiles, err := ussd.NewProfiles(nil)
	s.must(err)
	s.server, err = ussd.New(ussd.Config{
		Links: []ussd.Link{{Name: "op", Profile: profiles["plain-its"], FollowBySMS: true}},
		Codes: []string{"*377*888#"}, Show: s.menu.Show,
		Answer: func(_ context.Context, r carrier.Reply) error {
			r.Done(carrier.Answered{})
			s.replies <- r
			return nil
		},
		Now: func() time.Time { return now }, Deadline: patience,
		Log: slog.New(slog.DiscardHandler), Metrics: ussd.NewMetrics(prometheus.NewPedanticRegistry()),
	})
	s.must(err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.server.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return s
}

// directions are the stage directions of the plays.
func (s *stage) directions() map[string]func() {
	return map[string]func(){
		"the consents for Маша are withdrawn": func() {
			s.exec(`UPDATE access.consent SET withdrawn_at = $2 WHERE child_id = $1`, s.people["Маша"], now)
		},
		"the nanny is removed": func() {
			s.exec(`UPDATE access.guardian SET revoked_at = $2 WHERE representative_id = $1`, s.phones[nanny], now)
		},
		"the consent covers visits only": func() {
			s.exec(`UPDATE access.consent SET meals = false WHERE child_id = $1`, s.people["Маша"])
		},
		"the consent covers meals only": func() {
			s.exec(`UPDATE access.consent SET visits = false WHERE child_id = $1`, s.people["Маша"])
		},
		"the operator says twice that there is no subscriber 79000000001": func() {
			s.exec(`INSERT INTO delivery.address (channel, address, refusals, suppressed_at, reason)
				VALUES ('sms', '79000000001', 2, clock_timestamp(), 'refused')`)
		},
		"the mother sends STOP": func() {
			s.must(delivery.OptOut(s.Context(), s.pool, subscription.SMS, "79000000001", "stop", now))
		},
		"the mother signs a new form": func() {
			s.exec(`INSERT INTO access.consent (child_id, representative_id, visits, meals, form, given_on, since)
				VALUES ($1, $2, true, true, 'Z-2', $3::timestamptz::date, $3)`, s.people["Маша"], s.phones["79000000001"], now)
		},
		"the mother has had ten answers by SMS today": func() {
			for range smsPerDay {
				s.menu.asked.take(mother, now)
			}
		},
		"five more sales": func() {
			for n := range 5 {
				s.sell("Маша", meal.Buffet, "", 1_00, clock(0, 11, n), meal.Item{Code: "b1", Name: "Чай", Quantity: 1, Price: 1_00})
			}
		},
		"the SMS that were sent": func() {},
	}
}

// play plays a script and returns it as it went.
func (s *stage) play(script string) string {
	s.Helper()
	var out strings.Builder
	lines := bufio.NewScanner(strings.NewReader(script))
	for lines.Scan() {
		line := lines.Text()
		words := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "| ") || line == "|" || line == "(the end)":
			continue // what was said last time
		case strings.HasPrefix(line, "("):
			direct, ok := s.directions()[strings.Trim(line, "()")]
			if !ok {
				s.Fatalf("nobody knows how to do %s", line)
			}
			direct()
			fmt.Fprintln(&out, line)
			if line == "(the SMS that were sent)" {
				s.mu.Lock()
				for _, sms := range s.sent {
					fmt.Fprintln(&out, "| "+sms)
				}
				s.sent = nil
				s.mu.Unlock()
			}
		case len(words) == 3 && words[1] == "dials":
			s.phone, s.session = phone.Number(words[0]), s.session+1
			fmt.Fprintln(&out, line)
			s.says(&out, s.ask(1, words[2]))
		case len(words) == 2 && words[0] == "presses":
			fmt.Fprintln(&out, line)
			s.says(&out, s.ask(18, words[1]))
		case line == "" || strings.HasPrefix(line, "#"):
			fmt.Fprintln(&out, line)
		default:
			s.Fatalf("this is no line of a play: %q", line)
		}
	}
	return out.String()
}

// says writes a screen down, and checks that a phone can show it.
func (s *stage) says(out *strings.Builder, r carrier.Reply) {
	s.Helper()
	text, err := gsm.DecodeGSM7(r.Octets)
	room := 160
	if r.DataCoding == 8 {
		text, err = gsm.DecodeUCS2(r.Octets)
		room = 140
	}
	s.must(err)
	if len(r.Octets) > room {
		s.Errorf("a screen of %d octets: %q", len(r.Octets), text)
	}
	for line := range strings.Lines(text + "\n") {
		fmt.Fprint(out, "| "+line)
	}
	if r.Op == 17 {
		fmt.Fprintln(out, "(the end)")
	}
}

// ask sends a message of the phone and waits for its answer.
func (s *stage) ask(op byte, text string) carrier.Reply {
	s.Helper()
	s.server.Dial(carrier.Dial{
		Operator: "op", Link: 1, Command: smpp.CmdDeliverSM, Op: op, HasOp: true, Phone: s.phone, Text: text,
		Source:      smpp.Address{TON: 1, NPI: 1, Addr: string(s.phone)},
		Destination: smpp.Address{NPI: 1, Addr: "377"},
		TLVs:        smpp.TLVs{{Tag: smpp.TagITSSessionInfo, Value: []byte{s.session, 0}}},
	})
	select {
	case r := <-s.replies:
		return r
	case <-time.After(patience):
		s.Fatalf("no answer to %q", text)
		return carrier.Reply{}
	}
}
