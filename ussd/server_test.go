package ussd

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp"
)

func TestKeysLeadThroughTheMenu(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		expect(t, "a dial shows the first screen", p.dial("*377*888#"), firstPage)
		expect(t, "a key leads on", p.key("1"), leafPage)
		expect(t, "and on", p.key("1"), deeperPage)
		expect(t, "0 goes back", p.key("0"), leafPage)
		expect(t, "0 goes back again", p.key("0"), firstPage)
		p.key("1")
		p.key("1")
		expect(t, "00 goes to the first screen", p.key("00"), firstPage)
		r.open(1)
		expect(t, "0 on the first screen leaves", p.key("0"), "Goodbye!\n.")
		r.open(0)
		if got := r.ended(endedLeft); got != 1 {
			t.Errorf("%v dialogues ended by leaving", got)
		}
	})
}

func TestMoreGoesThroughThePagesAndBackThroughThemToo(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		p.dial("*377*888#")
		one := p.key("2")
		two := p.key("9")
		three := p.key("9")
		if !strings.HasSuffix(one, "\n9 More 0 Back") || !strings.HasSuffix(two, "\n9 More 0 Back") ||
			!strings.HasPrefix(three, "line 12 ") || !strings.HasSuffix(three, "\n0 Back") {
			t.Errorf("pages:\n%s\n\n%s\n\n%s", one, two, three)
		}
		expect(t, "9 on the last page is no key", p.key("9"), "No such key\n"+three)
		expect(t, "0 goes back a page", p.key("0"), two)
		expect(t, "and another", p.key("0"), one)
		expect(t, "and then to the screen before", p.key("0"), firstPage)
	})
}

func TestAnActionIsNotGoneBackTo(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		p.dial("*377*888#")
		expect(t, "an action", p.key("5"), "switched for 79000000001\n5 Again\n0 Back")
		expect(t, "the same again", p.key("5"), "switched for 79000000001\n5 Again\n0 Back")
		expect(t, "0 goes to where the first began", p.key("0"), firstPage)
	})
}

func TestDialledShortcutsArePressed(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		expect(t, "two keys", p.dial("*377*888*1*1#"), deeperPage)
		expect(t, "0 goes back along them", p.key("0"), leafPage)
		expect(t, "what is no key stops", p.dial("*377*888*1*7#"), leafPage)
		expect(t, "a shortcut of the menu's own", p.dial("*377*888*8#"), "first for 79000000001\n.")
	})
}

func TestWhatIsNoKeyIsHintedThreeTimes(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		p.dial("*377*888#")
		for n, typed := range []string{"7", "", "balance please"} {
			expect(t, fmt.Sprint("hint ", n+1), p.key(typed), "No such key\n"+firstPage)
		}
		expect(t, "the fourth closes", p.key("#"), "Goodbye!\n.")
		r.open(0)

		p.dial("*377*888#")
		p.key("7")
		p.key("7")
		p.key("1")
		expect(t, "a key in between starts the count anew", p.key("7"), "No such key\n"+leafPage)
	})
}

// ussd.md 5: a redial replaces the dialogue; what the old one still brings is dropped.
func TestANewBeginReplacesTheDialogue(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		p.dial("*377*888#")
		p.key("1")
		p.id = 0x2b
		expect(t, "a redial", p.dial("*377*888#"), firstPage)
		r.open(1)
		expect(t, "its first screen is the top", p.key("0"), "Goodbye!\n.")
	})
}

func TestAScreenThatIsReadyAfterARedialIsDropped(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		r.menu.gate = make(chan struct{})
		r.menu.stuck = true
		expect(t, "the menu is slow", p.dial("*377*888*1#"), "")
		p.id = 0x2b
		expect(t, "so is the second dialogue, which waits for the first", p.dial("*377*888#"), "")
		close(r.menu.gate)
		synctest.Wait()
		if got := r.all(); len(got) != 1 || got[0] != firstPage {
			t.Errorf("shown: %q", got)
		}
		if id := r.last().TLVs[0].Value[0]; id != 0x2b {
			t.Errorf("the answer went to session %#x", id)
		}
	})
}

// ussd.md 5: duplicates within 3 s are acknowledged and change nothing; the stored answer is sent again only when the
// first failed.
func TestARepetitionIsAnsweredOnce(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		expect(t, "the first", p.dial("*377*888#"), firstPage)
		expect(t, "the same again", p.dial("*377*888#"), "")
		time.Sleep(repeatWindow)
		expect(t, "the same later is a new dial", p.dial("*377*888#"), firstPage)
		if got := len(r.menu.shown); got != 2 {
			t.Errorf("the menu was asked %d times", got)
		}

		r.ack = func(carrier.Reply) *carrier.Answered { return nil }
		expect(t, "a key", p.key("1"), leafPage)
		expect(t, "the key again, before the page was acknowledged", p.key("1"), "")
		if got := r.ignored(ignoredRepeat); got != 2 {
			t.Errorf("%v repetitions were counted", got)
		}
	})
}

func TestAKeyPressedTwiceIsTwoKeys(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		p.dial("*377*888#")
		expect(t, "once", p.key("1"), leafPage)
		expect(t, "twice, the page in between having been shown", p.key("1"), deeperPage)
	})
}

// Gateways that acknowledge late do so when the person has typed; the two may overtake each other on their way to us.
func TestAKeyPressedTwiceIsTwoKeysAlsoWhenItsAcknowledgementIsAMomentBehind(t *testing.T) {
	with(t, func(c *Config) { c.Links[0].Profile.LateAck = true }, func(r *rig) {
		p := r.phone(masha)
		r.ack = func(carrier.Reply) *carrier.Answered { return nil }
		acknowledge := func() { p.last().Done(carrier.Answered{}) }
		p.dial("*377*888#")
		acknowledge()
		p.key("2")
		acknowledge()
		two := p.key("9")
		expect(t, "the same key, before the page is acknowledged", p.key("9"), "")
		before := len(r.all())
		acknowledge()
		synctest.Wait()
		if got := r.all()[before:]; len(got) != 1 || got[0] == two || !strings.HasPrefix(got[0], "line 12 ") {
			t.Errorf("shown: %q", got)
		}
		expect(t, "a repetition", p.key("9"), "")
		time.Sleep(doubtWindow)
		before = len(r.all())
		acknowledge()
		synctest.Wait()
		if got := r.all()[before:]; len(got) != 0 {
			t.Errorf("long afterwards: %q", got)
		}
	})
}

func TestARepetitionGetsTheStoredAnswerWhenTheFirstFailed(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		r.refuse = carrier.ErrNotBound
		expect(t, "no link at the moment", p.dial("*377*888#"), "")
		r.refuse = nil
		expect(t, "the gateway says it again by another", p.dial("*377*888#"), firstPage)
		expect(t, "and the dialogue goes on", p.key("1"), leafPage)
		r.open(1)
		if got := len(r.menu.shown); got != 2 {
			t.Errorf("the menu was asked %d times", got)
		}
	})
}

func TestWithoutASessionIDAQuickRedialIsANewDialogue(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		bare := func(d *carrier.Dial) { d.TLVs = d.TLVs[:1] }
		expect(t, "a dial", p.send(opPSSR, "*377*888#", bare), firstPage)
		expect(t, "another", p.send(opPSSR, "*377*888#", bare), firstPage)
		r.ack = func(carrier.Reply) *carrier.Answered { return nil }
		p.key("00")
		expect(t, "a repetition", p.send(opPSSR, "*377*888#", bare), firstPage)
		expect(t, "before the page was acknowledged", p.send(opPSSR, "*377*888#", bare), "")
	})
}

func TestAnAnswerAfterTheTimeIsToldToDialAgain(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		p.dial("*377*888#")
		time.Sleep(defaultTTL - time.Second)
		expect(t, "in time", p.key("1"), leafPage)
		time.Sleep(defaultTTL + sweepEvery)
		r.open(0)
		expect(t, "too late", p.key("1"), expiredPage)
		expect(t, "too late, but the code", p.key("*377*888#"), firstPage)
		expect(t, "the code as an answer in time", p.key("*377*888*1#"), leafPage)
		if got := r.ended(endedExpired); got != 1 {
			t.Errorf("%v dialogues expired", got)
		}
	})
}

func TestTheDialogueOutlivesItsConnection(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		p.dial("*377*888#")
		got := p.send(opUSSRConfirm, "1", func(d *carrier.Dial) { d.Link = 9 })
		expect(t, "a key by another bind", got, leafPage)
		if link := r.last().Link; link != 9 {
			t.Errorf("answered by link %d", link)
		}
	})
}

func TestLostWithItsLinkAPageIsSentAgainToWhoAsksAgain(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		r.ack = func(carrier.Reply) *carrier.Answered { return &carrier.Answered{Err: carrier.ErrLinkLost} }
		p.dial("*377*888#")
		r.open(1)
		r.ack = nil
		expect(t, "after the rebind", p.dial("*377*888#"), firstPage)
		expect(t, "the dialogue goes on", p.key("1"), leafPage)
	})
}

// Fault row 52 and issue 4, item 2: nothing of one phone is ever shown to another.
func TestAForgedSessionIDShowsNothing(t *testing.T) {
	with(t, nil, func(r *rig) {
		p, thief := r.phone(masha), r.phone(petya)
		p.dial("*377*888#")
		expect(t, "a live session id with another phone", thief.key("1"), expiredPage)
		expect(t, "the owner is not disturbed", p.key("1"), leafPage)

		expect(t, "session numbers are reused by other phones", thief.dial("*377*888#"),
			strings.ReplaceAll(firstPage, "01", "02"))
		expect(t, "each keeps its own", p.key("0"), firstPage)

		other := r.phone(masha)
		other.link = "beeline"
		expect(t, "the same phone by another operator's link is another dialogue", other.key("1"), expiredPage)
		thief.send(129, "", func(d *carrier.Dial) {})
		expect(t, "an abort is for the phone it names", p.key("1"), leafPage)

		text := r.phone(petya).dial("*377*888*79000000001#")
		if strings.Contains(text, "79000000001") {
			t.Errorf("a number in the text was believed: %q", text)
		}
	})
}

func TestOnlyLinksOfThisServerAreBelieved(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		p.link = "customer"
		expect(t, "a begin by somebody's SMS bind", p.dial("*377*888#"), "")
		r.open(0)
		p.link = "mts"
		p.number = ""
		expect(t, "a begin without a subscriber number", p.dial("*377*888#"), "")
		if got := r.ignored(ignoredNoPhone); got != 1 {
			t.Errorf("%v counted", got)
		}
	})
}

func TestIDsThatChangeInMidDialogueAreForgivenStaleOnesAreNot(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		p.dial("*377*888#")
		p.id = 0x31
		expect(t, "an id never heard of belongs to the only dialogue", p.key("1"), leafPage)
		p.id = 0x2b
		p.dial("*377*888#")
		p.id = 0x2a
		expect(t, "the id of the dialogue before is stale", p.key("1"), "")
		p.send(129, "")
		r.open(1)
		p.id = 0x2b
		expect(t, "and has changed nothing", p.key("1"), leafPage)
	})
}

func TestWithAnIDThatChangedARepetitionAndAnAbortAreStillKnown(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		p.dial("*377*888#")
		r.ack = func(carrier.Reply) *carrier.Answered { return nil }
		p.id = 0x31
		expect(t, "a key with an id never heard of", p.key("1"), leafPage)
		expect(t, "the gateway says it again", p.key("1"), "")
		p.send(129, "")
		r.open(0)
	})
}

// ussd.md 1.4: aborts in all their shapes.
func TestAnAbortDropsTheDialogueAndIsNotAnswered(t *testing.T) {
	its := func(end byte) smpp.TLV { return smpp.TLV{Tag: smpp.TagITSSessionInfo, Value: []byte{0x2a, end}} }
	shapes := map[string]func(*carrier.Dial){
		"SMPP+ abort":                func(d *carrier.Dial) { d.Op = 129 },
		"Russian-language ESMEs":     func(d *carrier.Dial) { d.Op = 33 },
		"Glo hang-up":                func(d *carrier.Dial) { d.Op = 65 },
		"Glo failure":                func(d *carrier.Dial) { d.Op = 66 },
		"Glo reject":                 func(d *carrier.Dial) { d.Op = 67 },
		"an answer with the end bit": func(d *carrier.Dial) { d.Op, d.TLVs = opUSSRConfirm, smpp.TLVs{d.TLVs[0], its(1)} },
		"the end bit alone":          func(d *carrier.Dial) { d.HasOp, d.TLVs = false, smpp.TLVs{its(1)} },
		"C gateway text": func(d *carrier.Dial) {
			d.HasOp, d.ESMClass, d.Text, d.TLVs = false, 0x08, "ABORT from mobile phone", nil
		},
		"the text alone":     func(d *carrier.Dial) { d.HasOp, d.Text, d.TLVs = false, "ABORT from mobile phone", nil },
		"conversation abort": func(d *carrier.Dial) { d.HasOp, d.ESMClass, d.TLVs = false, 0x18, nil },
	}
	with(t, nil, func(r *rig) {
		for what, shape := range shapes {
			p := r.phone(masha)
			time.Sleep(burstPeriod)
			p.dial("*377*888#")
			r.open(1)
			expect(t, what, p.send(opUSSRConfirm, "", shape), "")
			r.open(0)
		}
		expect(t, "afterwards", r.phone(masha).key("1"), expiredPage)
	})
}

func TestAnErrorForAPageEndsTheDialogue(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		for _, status := range []smpp.Status{
			0x404, 0x407, 0x408, 0x40E, 0x455, 0x459, 0x49B, 0x4C1, 0x4C8, 0x64, 0x65, 0x0B, 0x14, 0x50,
		} {
			r.ack = func(carrier.Reply) *carrier.Answered { return &carrier.Answered{Status: status} }
			time.Sleep(burstPeriod)
			before := len(r.all())
			p.dial("*377*888#")
			r.open(0)
			time.Sleep(defaultTTL)
			if got := len(r.all()) - before; got != 1 {
				t.Errorf("after %s the page was sent %d times", status, got)
			}
		}
	})
}

func TestALateAcknowledgementHoldsNothingUp(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		var done []func(carrier.Answered)
		r.ack = func(reply carrier.Reply) *carrier.Answered {
			done = append(done, reply.Done)
			return nil
		}
		p.dial("*377*888#")
		time.Sleep(time.Minute)
		expect(t, "the answer comes before the acknowledgement", p.key("1"), leafPage)
		done[0](carrier.Answered{Status: 0x407})
		expect(t, "news of an old page is no news", p.key("0"), firstPage)
		if wait := r.last().Wait; wait != defaultTTL {
			t.Errorf("a menu is waited for %v", wait)
		}
		done[2](carrier.Answered{})
		p.key("0")
		if wait := r.last().Wait; wait != finalWait {
			t.Errorf("a last page is waited for %v", wait)
		}
	})
}

// ussd.md 3: own deadline 5 s, then op 17 "try later"; nothing of the screen that comes afterwards.
func TestASlowMenuIsClosedAfterFiveSeconds(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		r.menu.gate, r.menu.stuck = make(chan struct{}), true
		p.dial("*377*888#")
		time.Sleep(defaultDeadline - time.Millisecond)
		if got := r.all(); len(got) != 0 {
			t.Fatalf("shown early: %q", got)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		expect(t, "on time", strings.Join(r.all(), "&"), laterPage)
		close(r.menu.gate)
		synctest.Wait()
		if got := r.all(); len(got) != 1 {
			t.Errorf("the late screen was shown: %q", got)
		}
		r.open(0)
	})
}

func TestTheDeadlineCountsTheTimeInTheQueue(t *testing.T) {
	with(t, func(c *Config) { c.Workers = 1 }, func(r *rig) {
		r.menu.gate, r.menu.stuck = make(chan struct{}), true
		r.phone(masha).dial("*377*888#")
		time.Sleep(2 * time.Second)
		r.phone(petya).dial("*377*888#")
		time.Sleep(defaultDeadline)
		synctest.Wait()
		if got := r.all(); len(got) != 2 || got[1] != laterPage {
			t.Errorf("shown: %q", got)
		}
		close(r.menu.gate)
	})
}

func TestAMenuThatFailsClosesPolitely(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		p.dial("*377*888#")
		expect(t, "an error", p.key("3"), "The service is busy. Please try again later.\n.")
		r.open(0)
		time.Sleep(repeatWindow)
		p.dial("*377*888#")
		expect(t, "a panic", p.key("4"), "The service is busy. Please try again later.\n.")
		time.Sleep(repeatWindow)
		expect(t, "the process lives", p.dial("*377*888#"), firstPage)
	})
}

// Issue 4, bad input: floods from one number (10 a minute, then one polite text). Fault row 51.
func TestAPhoneThatDialsTooOftenIsToldOnce(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		redial := func() string { p.id++; return p.dial("*377*888#") }
		for n := range burst {
			expect(t, fmt.Sprint("dial ", n+1), redial(), firstPage)
		}
		expect(t, "the eleventh is told", redial(), tooManyPage)
		r.open(0)
		for range 50 {
			expect(t, "then silence", redial(), "")
		}
		if other := r.phone(petya).dial("*377*888#"); other == "" {
			t.Error("another phone is not served")
		}
		time.Sleep(burstPeriod)
		expect(t, "after a minute", redial(), firstPage)
	})
}

// ussd.md 6: Russian for +7, English for the rest of the world, Latin letters where the link carries no others.
func TestTheEnginesOwnWordsAreInTheLanguageOfThePhonesCountry(t *testing.T) {
	with(t, func(c *Config) { c.Links[1].Latin = true }, func(r *rig) {
		for _, test := range []struct {
			link                    string
			number                  phone.Number
			expired, later, tooMany string
		}{
			{"mts", "79000000001", expiredPage, laterPage, tooManyPage},
			{
				"mts", "447700900001", "The session has expired. Please dial *377*888#\n.",
				"The service is busy. Please try again later.\n.", "Too many requests. Please try again in a minute.\n.",
			},
			{
				"beeline", "79000000001", "Seans istyok, naberite *377*888#\n.",
				"Servis zanyat. Poprobuyte pozzhe.\n.", "Slishkom mnogo zaprosov. Poprobuyte cherez minutu.\n.",
			},
		} {
			p := r.phone(test.number)
			p.link = test.link
			expect(t, "a key without a dialogue", p.key("1"), test.expired)
			expect(t, "a menu that fails before it has shown anything", p.dial("*377*888*3#"), test.later)
			for range burst - 2 {
				p.id++
				p.dial("*377*888#")
			}
			p.id++
			expect(t, "a dial too many", p.dial("*377*888#"), test.tooMany)
		}
	})
}

func TestAProfileMayCloseEveryDialTooMany(t *testing.T) {
	with(t, func(c *Config) { c.Links[0].Profile.FloodCloses = true }, func(r *rig) {
		p := r.phone(masha)
		for range burst {
			p.id++
			p.dial("*377*888#")
		}
		for range 3 {
			p.id++
			expect(t, "over the limit", p.dial("*377*888#"), tooManyPage)
		}
	})
}

func TestMadeUpAnswersAreLimitedLikeDials(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		for range burst {
			expect(t, "without a dialogue", p.key("1"), expiredPage)
		}
		expect(t, "over the limit", p.key("1"), "")
	})
}

// Fault row 51: floods of begins that never end; bounded memory, oldest go first.
func TestTheOldestDialogueMakesRoom(t *testing.T) {
	with(t, func(c *Config) { c.MaxOpen = 100; c.Links[1].MaxOpen = 10 }, func(r *rig) {
		number := func(n int) phone.Number { return phone.Number(fmt.Sprintf("790000%05d", n)) }
		for n := range 150 {
			r.phone(number(n)).dial("*377*888#")
			time.Sleep(time.Millisecond)
		}
		r.open(100)
		expect(t, "the oldest are gone", r.phone(number(49)).key("1"), expiredPage)
		if got := r.phone(number(50)).key("1"); !strings.HasPrefix(got, "leaf") {
			t.Errorf("the fiftieth newest is gone: %q", got)
		}
		for n := range 20 {
			p := r.phone(number(n))
			p.link = "beeline"
			p.dial("*377*888#")
		}
		r.open(100)
		if got := r.server.links["beeline"].open.length; got != 10 {
			t.Errorf("a link of ten has %d", got)
		}
	})
}

// Fault row 51: answers for the rest while one link floods.
func TestAFloodOnOneLinkDoesNotDelayAnother(t *testing.T) {
	with(t, func(c *Config) { c.Workers = 1 }, func(r *rig) {
		gate := make(chan struct{})
		r.menu.gate, r.menu.stuck = gate, true
		for n := range maxWaiting * 3 {
			p := r.phone(phone.Number(fmt.Sprintf("790000%05d", n)))
			r.server.Dial(carrier.Dial{
				Operator: p.link, Phone: p.number, Op: opPSSR, HasOp: true, Text: "*377*888#", Command: smpp.CmdDeliverSM,
			})
		}
		other := r.phone(masha)
		other.link = "beeline"
		other.dial("*377*888#")
		r.menu.mu.Lock()
		r.menu.gate = nil
		r.menu.mu.Unlock()
		gate <- struct{}{} // the one worker finishes its first screen
		synctest.Wait()
		got := r.all()
		if len(got) < 2 || got[1] != firstPage {
			t.Errorf("the other link was answered later than second")
		}
		if waited := r.ignored(ignoredOverload); waited < float64(maxWaiting)-10 {
			t.Errorf("only %v of the flood were dropped", waited)
		}
	})
}

// Issue 4, item 4: if the session dies before the answer is shown, the answer follows once by SMS.
func TestAnAnswerThatWasNotShownFollowsBySMSOnce(t *testing.T) {
	const sms = "79000000001: first for 79000000001"
	refuse := func(s smpp.Status) func(carrier.Reply) *carrier.Answered {
		return func(carrier.Reply) *carrier.Answered { return &carrier.Answered{Status: s} }
	}
	silent := func(carrier.Reply) *carrier.Answered { return nil }
	abort := func(p *phoneOn) { p.send(129, "") }
	late := func(l *Link) { l.Profile.LateAck, l.Profile.Cancelled = true, [2]smpp.Status{0x455, 0x459} }
	tests := []struct {
		what string
		link func(*Link)
		ack  func(carrier.Reply) *carrier.Answered
		fail error
		then func(p *phoneOn)
		want string
	}{
		{what: "the operator has no link", fail: carrier.ErrNotBound, want: sms},
		{what: "the operator refuses the page", ack: refuse(0x407), want: sms},
		{
			what: "the link is lost with the page",
			ack:  func(carrier.Reply) *carrier.Answered { return &carrier.Answered{Err: carrier.ErrLinkLost} }, want: sms,
		},
		{what: "the phone hangs up before the page is acknowledged", ack: silent, then: abort, want: sms},
		{what: "the page was acknowledged", then: abort, want: ""},
		{what: "the person cancels the page", link: late, ack: refuse(0x455), want: ""},
		{
			what: "a gateway that acknowledges late refuses at once", link: late, ack: silent,
			then: func(p *phoneOn) { p.last().Done(carrier.Answered{Status: 0x4C1}) }, want: sms,
		},
		{
			what: "a gateway that acknowledges late refuses when the page has been seen", link: late, ack: silent,
			then: func(p *phoneOn) { time.Sleep(shownAfter); p.last().Done(carrier.Answered{Status: 0x4C1}) }, want: "",
		},
		{
			what: "twice in one dialogue", fail: carrier.ErrNotBound,
			then: func(p *phoneOn) { p.dial("*377*888#") }, want: sms,
		},
		{
			what: "the phone has dialled anew since", ack: silent,
			then: func(p *phoneOn) {
				first := p.last()
				p.id++
				p.dial("*377*888#")
				first.Done(carrier.Answered{Status: 0x407})
			}, want: "",
		},
		{
			what: "the link's setting says no", link: func(l *Link) { l.FollowBySMS = false },
			fail: carrier.ErrNotBound, want: "",
		},
		{
			what: "the person went on", ack: silent,
			then: func(p *phoneOn) { p.rig.ack = nil; p.key("1"); abort(p) }, want: "",
		},
	}
	for _, test := range tests {
		t.Run(test.what, func(t *testing.T) {
			set := func(c *Config) {
				c.Links[0].FollowBySMS = true
				if test.link != nil {
					test.link(&c.Links[0])
				}
			}
			with(t, set, func(r *rig) {
				r.ack, r.refuse = test.ack, test.fail
				p := r.phone(masha)
				p.dial("*377*888#")
				if test.then != nil {
					test.then(p)
				}
				expect(t, test.what, r.sms(), test.want)
			})
		})
	}
}

func TestAnAnswerNotYetReadyWhenThePhoneHangsUpFollowsBySMS(t *testing.T) {
	with(t, func(c *Config) { c.Links[0].FollowBySMS = true }, func(r *rig) {
		p := r.phone(masha)
		r.menu.gate = make(chan struct{})
		p.dial("*377*888#")
		p.send(129, "")
		close(r.menu.gate)
		expect(t, "the answer", r.sms(), "79000000001: first for 79000000001")
		if got := r.all(); len(got) != 0 {
			t.Errorf("shown to nobody: %q", got)
		}
	})
}

func TestAnOperatorMayWantTheAnswerAndNoMenu(t *testing.T) {
	with(t, func(c *Config) { c.Links[0].AnswerAndClose = true }, func(r *rig) {
		expect(t, "a dial", r.phone(masha).dial("*377*888#"), "first for 79000000001\n.")
		r.open(0)
	})
}

func TestAPhaseOnePhoneGetsOneAnswer(t *testing.T) {
	with(t, nil, func(r *rig) {
		got := r.phone(masha).send(opPSSD, "*377*888#")
		expect(t, "a PSSD", got, "first for 79000000001\n.")
		if op := r.last().Op; op != opPSSDResponse {
			t.Errorf("answered with op %d", op)
		}
	})
}

func TestAnUnclearMessageIsAnsweredAsTheProfileSays(t *testing.T) {
	with(t, func(c *Config) { c.Links[1].Profile.UnclearCloses = true }, func(r *rig) {
		p := r.phone(masha)
		expect(t, "an unknown operation, in silence", p.send(99, "1"), "")
		expect(t, "no operation at all", p.send(0, "1", func(d *carrier.Dial) { d.HasOp = false }), "")
		p.link = "beeline"
		expect(t, "an unknown operation, closing", p.send(99, "1"), laterPage)
		for range 2 * burst {
			p.send(99, "1")
		}
		expect(t, "but not for ever", p.send(99, "1"), "")
	})
}

func TestNoDialogueIsLongerThanAnyPersonMakesIt(t *testing.T) {
	with(t, nil, func(r *rig) {
		p := r.phone(masha)
		p.dial("*377*888#")
		for range maxSteps - 1 {
			if p.key("00") != firstPage {
				t.Fatal("ended early")
			}
		}
		expect(t, "one too many", p.key("00"), "Goodbye!\n.")
	})
}

func TestAtTheEndWhatIsInFlightIsAnswered(t *testing.T) {
	with(t, nil, func(r *rig) {
		r.menu.gate = make(chan struct{})
		r.phone(masha).dial("*377*888#")
		r.stop()
		synctest.Wait()
		expect(t, "a dial while draining", r.phone(petya).dial("*377*888#"), laterPage)
		close(r.menu.gate)
		<-r.done
		if got := r.all(); len(got) != 2 || got[1] != firstPage {
			t.Errorf("shown: %q", got)
		}
	})
}

// ussd.md 1.3 and 5: the shape of every message is logged for the day a gateway is connected, but never whose it is, what
// it says, or the IMSI that some gateways add.
func TestNothingOfASubscriberIsLogged(t *testing.T) {
	var log strings.Builder // written by one goroutine at a time: the bubble waits after each message
	with(t, func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}, func(r *rig) {
		const imsi = "250990000000001"
		p := r.phone(masha)
		known := func(d *carrier.Dial) { d.TLVs = append(d.TLVs, smpp.Text(smpp.TagCallbackNum, imsi)) }
		p.send(opPSSR, "*377*888*1#", known)
		p.id = 0x31 // an id never heard of
		p.send(opUSSRConfirm, "31415926", known)
		p.send(opUSSRConfirm, "00", known)
		p.send(opUSSRConfirm, "3", known) // the menu fails
		time.Sleep(repeatWindow)
		r.refuse = carrier.ErrNotBound
		p.send(opPSSR, "*377*888#", known)
		p.link = "customer"
		p.send(opPSSR, "*377*888#", known)
		for _, secret := range []string{string(masha), imsi, "31415926", "leaf 7", "first for", "377"} {
			octets := strings.Trim(fmt.Sprint([]byte(secret)), "[]")
			for _, form := range []string{secret, octets, fmt.Sprintf("%x", secret)} {
				if strings.Contains(log.String(), form) {
					t.Errorf("%q is in the log as %q:\n%s", secret, form, log.String())
				}
			}
		}
		for _, shape := range []string{"op=1 ", "op=18", "op=2", "callback_num", "its_session_info", "link=mts", "link=customer"} {
			if !strings.Contains(log.String(), shape) {
				t.Errorf("%q is not in the log:\n%s", shape, log.String())
			}
		}
	})
}

func TestALinkOrCodeThatIsWrongStopsTheStart(t *testing.T) {
	t.Parallel()
	profile := usual()
	for what, config := range map[string]Config{
		"no code":               {},
		"a code that is none":   {Codes: []string{"377"}},
		"a link without a name": {Codes: []string{"*377#"}, Links: []Link{{Profile: profile}}},
		"two links of one name": {Codes: []string{"*377#"}, Links: []Link{{Name: "a"}, {Name: "a"}}},
		"a convention nobody speaks": {
			Codes: []string{"*377#"}, Links: []Link{{Name: "a", HTTP: &Caller{Convention: "x", Secret: strings.Repeat("x", 16)}}},
		},
		"a secret anybody guesses": {
			Codes: []string{"*377#"}, Links: []Link{{Name: "a", HTTP: &Caller{Convention: "africastalking", Secret: "secret"}}},
		},
	} {
		config.Metrics = NewMetrics(prometheus.NewPedanticRegistry())
		if _, err := New(config); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
}
