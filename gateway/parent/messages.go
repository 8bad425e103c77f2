package parent

import (
	"context"
	"net/http"
	"slices"
	"time"

	"zvonok/gateway/delivery"
	"zvonok/gateway/notice"
	"zvonok/gateway/push"
	"zvonok/ledger"
)

// messagesAtOnce is how many messages a page has.
const messagesAtOnce = 50

// MessagesView is a page of what was sent to the reader (R62).
type MessagesView struct {
	Messages []MessageView `json:"messages" nullable:"false" doc:"The newest first. Codes are not among them."`
	Next     string        `json:"next,omitempty" doc:"For before, to go on; absent at the end."`
}

// MessageView is one message.
type MessageView struct {
	ID       int64      `json:"id"`
	At       time.Time  `json:"at"`
	Topic    string     `json:"topic" example:"pass" doc:"What it tells of: a topic of the subscriptions, digest, invitation and others."`
	Channel  string     `json:"channel" enum:"sms,email,push"`
	State    string     `json:"state" enum:"queued,sending,sent,delivered,unproved,unknown,partial,failed,stale,recalled"`
	Settled  *time.Time `json:"settled_at,omitempty" doc:"When it was delivered or given up."`
	Children []int64    `json:"children" nullable:"false" doc:"Of whom it tells."`
	Subject  string     `json:"subject,omitempty" doc:"Of a letter."`
	Text     string     `json:"text,omitempty" doc:"Absent when it is withheld, and after 29 days, when texts are destroyed."`
	Withheld bool       `json:"withheld,omitempty" doc:"Text and children are not shown, because you may no longer know of one of them."`
}

func (s routes) messages() {
	show(s, route{
		method: http.MethodGet, path: "/messages", id: "list-messages", summary: "What was sent to you, and what became of it",
		text: "To your present phone, mailbox and browsers.",
	}, func(ctx context.Context, v visitor, in *struct {
		Before string `query:"before" maxLength:"64" doc:"next of the page before; without it, the newest."`
	},
	) (MessagesView, error) {
		view := MessagesView{Messages: []MessageView{}}
		page, err := delivery.ParseInboxPage(in.Before)
		if err != nil {
			return view, &fieldError{"query.before", err.Error()}
		}
		you, err := v.known()
		if err != nil {
			return view, nil //nolint:nilerr // somebody invited has no messages yet
		}
		addresses := []string{string(you.Phone), push.Address(you.ID)}
		if you.Email != "" {
			addresses = append(addresses, you.Email)
		}
		messages, next, err := notice.Inbox(ctx, s.pool, you, addresses, page, v.now, messagesAtOnce)
		if err != nil {
			return view, err
		}
		var about []ledger.PersonID
		for _, m := range messages {
			line := MessageView{
				ID: int64(m.ID), At: m.At, Topic: m.Topic, Channel: m.Channel, State: string(m.State),
				Settled: moment(m.SettledAt, time.UTC), Children: []int64{}, Subject: m.Subject, Text: m.Text, Withheld: m.Withheld,
			}
			for _, child := range m.Children {
				line.Children = append(line.Children, int64(child))
			}
			about = append(about, m.Children...)
			view.Messages = append(view.Messages, line)
		}
		view.Next = next.String()
		slices.Sort(about)
		return view, s.look(ctx, v, "messages", slices.Compact(about)...)
	})
}
