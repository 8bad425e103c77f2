package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"zvonok/access/reader"
	"zvonok/gateway/notice"
)

type explainCommand struct {
	Event string `arg:"" help:"DEVICE:SEQ, the device by name or id, or the event's id."`
	JSON  bool   `name:"json" help:"Print JSON."`
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
		explain(c.out, story, lines)
		return nil
	})
}

const moment = "2006-01-02 15:04:05"

// explain says it in words.
func explain(w io.Writer, s reader.Story, lines []notice.Line) {
	fmt.Fprintf(w, "event %d: %s number %d of %s (device %d, building %s)\n", s.Event, s.Type, s.Seq, s.DeviceName, s.Device, s.Building)
	fmt.Fprintf(w, "  happened  %s\n", s.At.Local().Format(moment))
	fmt.Fprintf(w, "  received  %s, %s later: %s\n", s.ReceivedAt.Local().Format(moment),
		s.ReceivedAt.Sub(s.At).Round(time.Millisecond), s.State)
	if s.Code != "" {
		fmt.Fprintf(w, "  rejected  %s: %s\n", s.Code, s.Message)
	}
	if s.Conflicts > 0 {
		fmt.Fprintf(w, "  conflict  the device sent this number %d more times with another content\n", s.Conflicts)
	}
	if len(lines) == 0 {
		fmt.Fprintln(w, "  told      nobody: this kind of event is told to nobody, or its turn has not come yet")
	}
	for _, l := range lines {
		who := "nobody"
		if l.Representative != 0 {
			who = fmt.Sprintf("representative %d", l.Representative)
		}
		if l.Channel != "" {
			who += " by " + l.Channel
		}
		fmt.Fprintf(w, "  %s, child %s, %s: %s, %s\n", who, l.Child, l.Topic, l.Verdict, l.Why)
		t := l.Delivery
		if t == nil {
			continue
		}
		fmt.Fprintf(w, "    message %d to %s: %s", t.ID, t.Address, t.State)
		if t.Reason != "" {
			fmt.Fprintf(w, " (%s)", t.Reason)
		}
		fmt.Fprintf(w, ", made %s after the event\n", t.At.Sub(s.At).Round(time.Millisecond))
		for _, p := range t.Parts {
			fmt.Fprintf(w, "    attempt %d part %d/%d by %s at %s, id %s: %s", p.Attempt, p.Number, p.Count, p.Operator,
				p.SubmittedAt.Local().Format(moment), p.MessageID, p.State)
			if p.Error != "" {
				fmt.Fprintf(w, " (%s)", p.Error)
			}
			if p.DoneAt != nil {
				fmt.Fprintf(w, " at %s", p.DoneAt.Local().Format(moment))
			}
			fmt.Fprintln(w)
		}
	}
}
