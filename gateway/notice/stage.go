package notice

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/gateway/subscription"
	"zvonok/ledger/pg"
	"zvonok/templates"
)

// What the stages decide of a candidate is noted when they decide it, and kept
// in one short text of the notice's row: a word for each stage, in the order in
// which they were asked, which is the stage's letter and what it decided,
//
//	c rlegal s a f q- h k3/30 m t o
//
// A stage without a word was not asked, since one before it said no. The words
// are for [Story] alone; what follows from them (metrics, digests) has columns
// of its own.

// stageCode is a stage's letter.
type stageCode string

// The stages.
const (
	consentStage      stageCode = "c"
	rightStage        stageCode = "r" // passed with the role
	subscriptionStage stageCode = "s"
	addressStage      stageCode = "a"
	freshnessStage    stageCode = "f"
	quietStage        stageCode = "q" // or until when it is put off
	healthStage       stageCode = "h" // opt-out, and whether the address takes messages
	fallbackStage     stageCode = "b" // only where there is an order of channels
	capStage          stageCode = "k" // the number of the message in the phone's day, and the cap
	mergeStage        stageCode = "m"
	digestStage       stageCode = "d" // only of news that is not told at once: the digests that tell it
	textStage         stageCode = "t"
	routeStage        stageCode = "o"
)

// stageNames are the stages as explain calls them, in their order.
var stageNames = []struct {
	code   stageCode
	name   string
	always bool // it is asked of all news that no stage before it has refused
}{
	{consentStage, "consent", true},
	{rightStage, "right_to_know", true},
	{subscriptionStage, "subscription", true},
	{addressStage, "address", true},
	{freshnessStage, "freshness", true},
	{quietStage, "quiet_hours", true},
	{healthStage, "opt_out_and_health", true},
	{fallbackStage, "fallback", false},
	{capStage, "cap", true},
	{mergeStage, "merge", true},
	{digestStage, "digest", false},
	{textStage, "text", true},
	{routeStage, "route", true},
}

// outcome is what a stage decided, after its letter.
type outcome string

// The outcomes that are no more than a sign.
const (
	passed    outcome = ""
	refused   outcome = "x"
	exempt    outcome = "-" // the stage is not for such news
	always    outcome = "!" // told to whoever may know, subscribed or not
	capNotice outcome = "!" // told that the cap is reached, instead of the news
)

// decided notes what a stage has decided of a candidate.
func (c *candidate) decided(stage stageCode, o outcome) {
	c.stages = c.stages + string(stage) + string(o) + " "
}

// refuse notes that a stage said no, and why.
func (c *candidate) refuse(stage stageCode, why Reason) {
	c.decided(stage, refused)
	c.reason = why
}

// upTo is what was decided before a stage.
func (c *candidate) upTo(stage stageCode) string {
	before, _, _ := strings.Cut(" "+c.stages, " "+string(stage))
	return strings.TrimPrefix(before, " ") + " "
}

// decided notes what a stage has decided of all that a message tells.
func (m *message) decided(stage stageCode, o outcome) {
	for _, c := range m.members {
		c.decided(stage, o)
	}
}

// untilOutcome is a moment, to the second.
func untilOutcome(t time.Time) outcome { return outcome(strconv.FormatInt(t.Unix(), 36)) }

func nextOutcome(c subscription.Channel) outcome    { return outcome(">" + c) }
func insteadOutcome(c subscription.Channel) outcome { return outcome("<" + c) }

func countOutcome(sign outcome, place, limit int) outcome {
	return sign + outcome(strconv.Itoa(place)+"/"+strconv.Itoa(limit))
}

// noteMerging notes for each message whether others share it.
func noteMerging(messages []*message) {
	for _, m := range messages {
		switch {
		case !m.tells():
		case m.members[0].news.family == (family{}):
			m.decided(mergeStage, exempt)
		case m.joins != nil:
			m.decided(mergeStage, outcome("j"+strconv.Itoa(len(m.before)+len(m.members)-1)))
		case len(m.members) > 1:
			m.decided(mergeStage, outcome("&"+strconv.Itoa(len(m.members)-1)))
		case m.wait.IsZero():
			m.decided(mergeStage, passed)
		}
		if !m.wait.IsZero() {
			m.decided(mergeStage, "w"+untilOutcome(m.wait))
		}
	}
}

// digested finds, for what is not told at once, which digests tell it instead:
// those the recipient wants about the child, and for what the cap keeps back the
// day's in any case. News that nobody keeps back costs no question.
func digested(ctx context.Context, q pg.Querier, candidates []*candidate) error {
	type pair struct{ who, child int64 }
	var who, children []int64
	for _, c := range candidates {
		if c.keptBack() {
			who, children = append(who, int64(c.listener.Representative)), append(children, int64(c.news.child))
		}
	}
	if len(who) == 0 {
		return nil
	}
	// The modes stand in the statement, so that the index of digests is known to
	// hold all of its rows.
	rows, err := q.Query(ctx, `
		SELECT k.who, k.child, bool_or(s.mode = 'day'), bool_or(s.mode = 'week')
		FROM (SELECT DISTINCT who, child FROM unnest($1::bigint[], $2::bigint[]) AS k (who, child)) AS k
		JOIN subscription.subscription AS s
			ON s.mode IN ('day', 'week') AND s.representative_id = k.who AND s.child_id = k.child
		GROUP BY k.who, k.child`, who, children)
	if err != nil {
		return fmt.Errorf("find the digests that tell what is kept back: %w", err)
	}
	wanted := map[pair]outcome{}
	var (
		p         pair
		day, week bool
	)
	if _, err := pgx.ForEachRow(rows, []any{&p.who, &p.child, &day, &week}, func() error {
		wanted[p] = digestOutcomeOf(day, week)
		return nil
	}); err != nil {
		return fmt.Errorf("find the digests that tell what is kept back: %w", err)
	}
	for _, c := range candidates {
		if !c.keptBack() {
			continue
		}
		o := wanted[pair{int64(c.listener.Representative), int64(c.news.child)}]
		if over := c.reason == Capped || c.group != nil && c.group.capped; over && !strings.HasPrefix(string(o), "d") {
			o = "d" + o
		}
		switch {
		case o != "" && c.reason == NotSubscribed:
			c.reason = InDigest
			c.decided(digestStage, o)
		case o != "":
			c.decided(digestStage, o)
		case c.reason == Stale:
			c.decided(digestStage, exempt)
		}
	}
	return nil
}

func digestOutcomeOf(day, week bool) (o outcome) {
	if day {
		o += "d"
	}
	if week {
		o += "w"
	}
	return o
}

// keptBack reports whether the candidate is not told at once, but may be told of
// in a digest.
func (c *candidate) keptBack() bool {
	return c.reason == NotSubscribed || c.reason == Stale || c.reason == Capped || c.group != nil && c.group.capped
}

// readStages reads the words of a notice's row and why it was refused; times are
// given in a zone.
func readStages(text string, why Reason, zone *time.Location) []templates.ExplainedStage {
	words := map[stageCode][]string{}
	said := false // a stage said no to the news
	for word := range strings.FieldsSeq(text) {
		words[stageCode(word[:1])] = append(words[stageCode(word[:1])], word[1:])
	}
	var list []templates.ExplainedStage
	for _, stage := range stageNames {
		if len(words[stage.code]) == 0 {
			if stage.always && said {
				list = append(list, templates.ExplainedStage{Stage: stage.name, Verdict: "not_asked"})
			}
			continue
		}
		for _, word := range words[stage.code] {
			s := readStage(stage.code, outcome(word), zone)
			s.Stage = stage.name
			if s.Verdict == "refused" && s.Why == "" {
				s.Why = string(why)
			}
			if said && s.Verdict == "next" {
				s.Verdict = "taken_over"
			}
			said = said || s.Verdict == "refused" || s.Verdict == "notice"
			list = append(list, s)
		}
	}
	return list
}

// readStage reads what one stage decided.
func readStage(stage stageCode, o outcome, zone *time.Location) templates.ExplainedStage {
	s := templates.ExplainedStage{Verdict: "passed"}
	sign, rest := outcome(""), string(o)
	if o != "" {
		sign, rest = o[:1], string(o[1:])
	}
	switch {
	case stage == rightStage && sign != "" && o != refused:
		s.Role = string(o)
	case stage == quietStage && o != "" && o != exempt:
		s.Verdict, s.Until = "deferred", readUntil(string(o), zone)
	case stage == fallbackStage && sign == ">":
		s.Verdict, s.Channel = "next", rest
	case stage == fallbackStage && sign == "<":
		s.Verdict, s.Channel = "instead", rest
	case stage == mergeStage && sign == "&":
		s.Verdict = "merged"
		s.Others, _ = strconv.Atoi(rest) // as countOutcome and the like wrote it
	case stage == mergeStage && sign == "j":
		s.Verdict = "joined"
		s.Others, _ = strconv.Atoi(rest)
	case stage == mergeStage && sign == "w":
		s.Verdict, s.Until = "waits", readUntil(rest, zone)
	case stage == capStage && o != "" && o != exempt:
		switch sign {
		case refused:
			s.Verdict = "refused"
		case capNotice:
			s.Verdict = "notice"
		default:
			rest = string(o)
		}
		place, limit, _ := strings.Cut(rest, "/")
		s.Count, _ = strconv.Atoi(place)
		s.Limit, _ = strconv.Atoi(limit)
	case stage == digestStage && o == exempt:
		s.Verdict = "none"
	case stage == digestStage:
		s.Verdict = "kept"
		if strings.Contains(string(o), "d") {
			s.Digests = append(s.Digests, string(daily))
		}
		if strings.Contains(string(o), "w") {
			s.Digests = append(s.Digests, string(weekly))
		}
	case stage == routeStage && o == refused:
		s.Verdict, s.Why = "refused", "no_route"
	case o == refused:
		s.Verdict = "refused"
	case o == exempt:
		s.Verdict = "exempt"
	case o == always:
		s.Verdict = "always"
	}
	return s
}

func readUntil(text string, zone *time.Location) *time.Time {
	seconds, err := strconv.ParseInt(text, 36, 64)
	if err != nil {
		return nil
	}
	t := time.Unix(seconds, 0).In(zone)
	return &t
}
