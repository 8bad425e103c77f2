package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"zvonok/access/reader"
	"zvonok/gateway/notice"
	"zvonok/ledger"
	"zvonok/ledger/pg"
	"zvonok/templates"
)

type explainCommand struct {
	Event    string `arg:"" help:"DEVICE:SEQ, the device by name or id, or the event's id."`
	Language string `enum:"ru,en," default:"" help:"Say it in this language (ru, en); default: the terminal's." placeholder:"LANGUAGE"`
	JSON     bool   `name:"json" help:"Print JSON: each recipient, what each stage said, each part with its receipt and times."`
}

// explanation is everything on record of one event. It names nobody: people are
// ids, phones are masked, texts are left out.
type explanation struct {
	Event   any           `json:"event"` // reader.Story, or a notice.Fact that no device reported
	Notices []notice.Line `json:"notices"`
}

func (e *explainCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		language := languageOf(e.Language, os.Getenv)
		story, fact, err := find(ctx, d.pool, e.Event)
		if err != nil {
			return err
		}
		zone, err := time.LoadLocation(cmp.Or(story.TimeZone, fact.TimeZone))
		if err != nil {
			return fmt.Errorf("the organisation's time zone: %w", err)
		}
		event, at := story.Event, story.At
		if fact.Event != 0 {
			event, at = fact.Event, fact.At
		}
		lines, err := notice.Story(ctx, d.pool, event, at, language, zone)
		if err != nil {
			return err
		}
		story.At, story.ReceivedAt, fact.At = story.At.In(zone), story.ReceivedAt.In(zone), fact.At.In(zone)
		told := templates.Explanation{ID: int64(fact.Event), What: fact.Type, At: fact.At}
		if fact.Event == 0 {
			told = reported(story)
		}
		if e.JSON {
			whole := explanation{Event: story, Notices: append([]notice.Line{}, lines...)}
			if fact.Event != 0 {
				whole.Event = fact
			}
			return printJSON(c.out, whole)
		}
		for _, l := range lines {
			told.Recipients = append(told.Recipients, l.Explained())
		}
		_, err = fmt.Fprintln(c.out, strings.Join(told.Lines(language), "\n"))
		return err
	})
}

// find reads what is on record of an event: a device's report, or a fact that no
// device reported, whose event is then not 0.
func find(ctx context.Context, q pg.Querier, event string) (reader.Story, notice.Fact, error) {
	story, err := reader.Find(ctx, q, event)
	if !errors.Is(err, reader.ErrNoEvent) {
		return story, notice.Fact{}, err
	}
	if id, notNumber := strconv.ParseInt(event, 10, 64); notNumber == nil {
		fact, err := notice.FindFact(ctx, q, ledger.EventID(id))
		if !errors.Is(err, notice.ErrNoFact) {
			return reader.Story{}, fact, err
		}
	}
	return reader.Story{}, notice.Fact{}, fmt.Errorf(
		"event %s: never reported by a device; check the device and the number (zvonok key list)", event)
}

// moment is how tables write a time.
const moment = "2006-01-02 15:04:05"

// reported is a device's event as the words need it.
func reported(s reader.Story) templates.Explanation {
	e := templates.Explanation{
		ID: int64(s.Event), What: s.Type, Number: s.Seq, Device: s.DeviceName, Building: s.Building, At: s.At,
		ReceivedAt: s.ReceivedAt, State: s.State, Conflicts: s.Conflicts,
	}
	if s.Code != "" {
		e.Rejected = fmt.Sprintf("%s: %s", s.Code, s.Message)
	}
	return e
}

// languageOf is the language a command answers in: the one asked for, or that of
// the terminal.
func languageOf(asked string, environment func(string) string) templates.Language {
	for _, said := range []string{asked, environment("LC_ALL"), environment("LC_MESSAGES"), environment("LANG")} {
		switch {
		case strings.HasPrefix(strings.ToLower(said), "ru"):
			return templates.RU
		case said != "":
			return templates.EN
		}
	}
	return templates.EN
}
