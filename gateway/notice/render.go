package notice

import (
	"fmt"
	"slices"
	"time"

	"zvonok/access"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/templates"
)

// render makes a draft of each message that is still to be told.
func (t *Teller) render(messages []*message) []delivery.Draft {
	var drafts []delivery.Draft
	for _, m := range messages {
		if !m.open() || m.joins != nil {
			continue
		}
		c := m.members[0]
		draft := delivery.Draft{
			Event: c.news.event, Representative: c.listener.Representative, Children: m.children(), Organisation: c.news.org,
			Topic: string(c.news.topic), Channel: c.channel, Address: c.address, Priority: c.news.priority,
			Again: c.news.again, Expires: c.notAfter, NotBefore: c.notUntil, Placed: true, // limit has given it its place
		}
		if m.wait.After(draft.NotBefore) {
			draft.NotBefore = m.wait
		}
		if m.capped {
			draft.Body = templates.Capped{}.SMS(t.reader(c, c.channel).style)
		} else {
			draft.Body, draft.Letter = t.text(m, c.channel)
			draft.Spare = t.spare(m)
			draft.Family = c.news.family.key()
			for _, sibling := range m.members[1:] {
				draft.Joined = append(draft.Joined, sibling.news.event)
			}
		}
		drafts = append(drafts, draft)
	}
	return drafts
}

// reader is the recipient of a candidate, reading by a channel.
func (t *Teller) reader(c *candidate, channel subscription.Channel) reader {
	return reader{
		style:   t.style(c.listener, channel),
		legal:   c.listener.Role == access.Legal,
		meals:   c.listener.Meals,
		channel: channel,
		links:   t.linksFor(c.listener, channel),
	}
}

// linksFor are the links in a letter to a listener, none by other channels.
func (t *Teller) linksFor(l listener, channel subscription.Channel) templates.Links {
	if channel != subscription.Email {
		return templates.Links{}
	}
	return t.links(l.Email)
}

// style is how a listener reads by a channel. Latin letters save money in an SMS;
// elsewhere they would only be hard to read.
func (t *Teller) style(l listener, channel subscription.Channel) templates.Style {
	return templates.Style{
		Language: templates.Language(l.Language), Latin: l.Translit && channel == subscription.SMS, Texts: t.texts(),
	}
}

// text renders a message for a channel.
func (t *Teller) text(m *message, channel subscription.Channel) (string, *delivery.Letter) {
	return t.tellOf(m.before, m.members, channel)
}

// tellOf renders news of siblings for a channel: words that a message tells already, and candidates.
func (t *Teller) tellOf(before []words, members []*candidate, channel subscription.Channel) (string, *delivery.Letter) {
	all := slices.Clone(before)
	for _, member := range members {
		all = append(all, member.news.words)
	}
	first := members[0]
	body, letter := all[0].message(t.reader(first, channel), all[1:])
	if letter != nil {
		letter.Thread = thread(first.news.child, first.news.at.In(first.news.zone))
	}
	return body, letter
}

// thread names the conversation of a child's day, in which a reader's program
// shows its letters as one.
func thread(child ledger.PersonID, day time.Time) string {
	return fmt.Sprintf("child-%d.%s", child, day.Format("20060102"))
}

// fallsBack are the candidates of a message that the recipient's next channel is to
// tell: those of which it does not tell anyway.
func (m *message) fallsBack() []*candidate {
	return slices.DeleteFunc(slices.Clone(m.members), func(c *candidate) bool { return c.next == nil })
}

// spare renders a message for the recipient's next channel, nil for none.
func (t *Teller) spare(m *message) *delivery.Spare {
	members := m.fallsBack()
	if len(members) == 0 {
		return nil
	}
	next := members[0].next
	s := &delivery.Spare{Channel: next.channel, Address: next.address, Patience: next.patience}
	s.Body, s.Letter = t.tellOf(m.before, members, next.channel)
	return s
}
