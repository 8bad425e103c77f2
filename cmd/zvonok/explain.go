package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"zvonok/access/reader"
	"zvonok/gateway/delivery"
	"zvonok/gateway/notice"
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
	Event   reader.Story  `json:"event"`
	Notices []notice.Line `json:"notices"`
}

func (e *explainCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		story, err := reader.Find(ctx, d.pool, e.Event)
		if errors.Is(err, reader.ErrNoEvent) {
			return fmt.Errorf("event %s: never reported by a device; check the device and the number (zvonok key list)", e.Event)
		}
		if err != nil {
			return err
		}
		lines, err := notice.Story(ctx, d.pool, story.Event, story.At)
		if err != nil {
			return err
		}
		if e.JSON {
			return printJSON(c.out, explanation{story, lines})
		}
		text := strings.Join(explained(story, lines).Lines(languageOf(e.Language, os.Getenv)), "\n")
		_, err = fmt.Fprintln(c.out, text)
		return err
	})
}

// moment is how tables write a time.
const moment = "2006-01-02 15:04:05"

// explained are the records as the words need them, in local time.
func explained(s reader.Story, lines []notice.Line) templates.Explanation {
	e := templates.Explanation{
		ID: int64(s.Event), What: s.Type, Number: s.Seq, Device: s.DeviceName, Building: s.Building, At: s.At.Local(),
		ReceivedAt: s.ReceivedAt.Local(), State: s.State, Conflicts: s.Conflicts,
	}
	if s.Code != "" {
		e.Rejected = fmt.Sprintf("%s: %s", s.Code, s.Message)
	}
	for _, l := range lines {
		e.Recipients = append(e.Recipients, templates.ExplainedRecipient{
			Representative: int64(l.Representative), Child: l.Child, Topic: l.Topic, Channel: l.Channel, Verdict: string(l.Verdict),
			Message: explainedMessage(l.Delivery),
		})
	}
	return e
}

func explainedMessage(t *delivery.Trail) *templates.ExplainedMessage {
	if t == nil {
		return nil
	}
	m := &templates.ExplainedMessage{
		ID: int64(t.ID), MadeAt: t.At.Local(), Channel: t.Channel, Address: t.Address, State: string(t.State), Reason: t.Reason,
		SettledAt: local(t.SettledAt), Expires: t.Expires.Local(), Resent: t.Resent, Siblings: len(t.Joined),
		FellBackAt: local(t.FellBackAt), Next: explainedMessage(t.Then),
	}
	for _, p := range t.Parts {
		m.Parts = append(m.Parts, templates.ExplainedPart{
			Attempt: p.Attempt, Number: p.Number, Count: p.Count, By: p.Operator, MessageID: p.MessageID, State: p.State,
			Error: p.Error, SubmittedAt: p.SubmittedAt.Local(), DoneAt: local(p.DoneAt),
		})
	}
	return m
}

func local(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	l := t.Local()
	return &l
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
