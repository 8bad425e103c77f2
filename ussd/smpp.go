package ussd

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"

	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp"
	"zvonok/templates"
	"zvonok/templates/gsm"
)

// tagEyelineLocale is Eyeline's private parameter with the language of the subscriber.
const tagEyelineLocale smpp.Tag = 0x4100

// languageEnglish is the value of language_indicator (SMPP 3.4 section 5.3.2.19).
const languageEnglish = 1

// Dial takes one USSD message of an operator. It returns at once, whatever the menu does, and is safe to call from the
// goroutine that reads the link; the answer goes out through Config.Answer. It is made for carrier.Config.Dial.
func (s *Server) Dial(d carrier.Dial) {
	l, ok := s.links[d.Operator]
	if !ok || l.HTTP != nil {
		s.meter.foreign.Inc()
		s.log.Debug("ussd: message of an operator without the role", "link", d.Operator)
		return
	}
	s.trace("ussd: in", l, d.Command, d.HasOp, d.Op, d.DataCoding, len(d.Octets), d.TLVs)
	e := event{
		key:    key{l, d.Phone},
		id:     l.Profile.sessionID(d.TLVs),
		dialed: d.Destination.Addr,
		text:   d.Text,
		once:   d.HasOp && d.Op == opPSSD,
		hint:   hintOf(d.TLVs),
		write: func(a answer, settled func(carrier.Answered)) error {
			return s.reply(l, d, a, settled)
		},
	}
	if imsi := l.Profile.imsiOf(d.TLVs); imsi != "" && s.config.SIM != nil {
		e.sim = s.config.SIM(imsi)
	}
	what, clear := l.Profile.kindOf(d)
	switch {
	case clear && d.Phone != "":
		e.kind = what
		s.take(e)
	case clear && what == abort:
		l.meter.ignored[ignoredNoPhone].Inc()
	default:
		s.unclear(e, clear)
	}
}

// unclear answers a message nobody can be found for, or nothing be read in, as the profile says.
func (s *Server) unclear(e event, clear bool) {
	why := ignoredUnclear
	if clear {
		why = ignoredNoPhone
	}
	e.link.meter.ignored[why].Inc()
	if !e.link.Profile.UnclearCloses {
		return
	}
	now := s.config.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bursts.admit(subscriber{e.link, e.phone}, now) == admitted {
		s.say(e, sayLater, e.guess(e.link.Latin), now)
	}
}

// kindOf reads what a message means. It is not clear when the operation is in none of the profile's lists, or when a
// message without one is no abort either.
func (p *Profile) kindOf(d carrier.Dial) (what kind, clear bool) {
	gone := p.EndBitAborts && ended(d.TLVs)
	switch {
	case !d.HasOp:
		class := d.ESMClass & smpp.ESMClassTypeMask
		return abort, class == smpp.ESMClassDeliveryAck || class == smpp.ESMClassAbort || gone ||
			p.AbortText != "" && strings.HasPrefix(d.Text, p.AbortText)
	case slices.Contains(p.Begin, d.Op):
		return begin, true
	case slices.Contains(p.Abort, d.Op):
		return abort, true
	case slices.Contains(p.Confirm, d.Op):
		return confirm, true
	case slices.Contains(p.Input, d.Op) && gone:
		return abort, true
	default:
		return input, slices.Contains(p.Input, d.Op)
	}
}

// sessionID returns what names the dialogue of a message, "" when nothing does. Parameters of a wrong length name
// nothing, nor do zeros, which gateways put in for want of a number.
func (p *Profile) sessionID(tlvs smpp.TLVs) string {
	for _, tag := range p.Session {
		value, ok := tlvs.Get(tag)
		if !ok {
			continue
		}
		switch {
		case len(bytes.Trim(value, "\x00")) == 0:
		case tag == smpp.TagITSSessionInfo && len(value) == 2 && p.ITS == ITSWide:
			return tag.String() + string([]byte{value[0], value[1] &^ 1})
		case tag == smpp.TagITSSessionInfo && len(value) == 2:
			return tag.String() + string(value[:1])
		case tag != smpp.TagITSSessionInfo && 0 < len(value) && len(value) <= 8:
			return tag.String() + string(value)
		}
	}
	return ""
}

// ended says whether its_session_info says that the session is over.
func ended(tlvs smpp.TLVs) bool {
	value, _ := tlvs.Get(smpp.TagITSSessionInfo)
	return len(value) == 2 && value[1]&1 == 1
}

// echo returns the session parameters of a message for its answer: each as it came, with the end bit and, where the
// gateway counts, the number of our unit.
func (p *Profile) echo(tlvs smpp.TLVs, end bool) smpp.TLVs {
	var back smpp.TLVs
	for _, t := range tlvs {
		if !slices.Contains(sessionTags(), t.Tag) {
			continue
		}
		t.Value = bytes.Clone(t.Value)
		if t.Tag == smpp.TagITSSessionInfo && len(t.Value) == 2 {
			t.Value[1] &^= 1
			if p.ITS == ITSUnits {
				t.Value[1] += 2
			}
			if end {
				t.Value[1] |= 1
			}
		}
		back = append(back, t)
	}
	return back
}

// hintOf returns the language the operator says the phone is set to.
func hintOf(tlvs smpp.TLVs) templates.Language {
	if n, ok := tlvs.Uint(smpp.TagLanguageIndicator); ok && n == languageEnglish {
		return templates.EN
	}
	locale, _ := tlvs.Text(tagEyelineLocale)
	switch locale = strings.ToLower(locale); {
	case strings.HasPrefix(locale, "en"):
		return templates.EN
	case strings.HasPrefix(locale, "ru"):
		return templates.RU
	default:
		return ""
	}
}

// reply writes an answer to the message it answers.
func (s *Server) reply(l *link, d carrier.Dial, a answer, settled func(carrier.Answered)) error {
	p := &l.Profile
	r := d.Reply()
	if p.Command != 0 {
		r.Command, r.Payload = p.Command, p.Command == smpp.CmdDataSM
	}
	if p.Service != "" {
		r.ServiceType = p.Service
	}
	r.ESMClass = p.ESMClass
	r.TLVs = p.echo(d.TLVs, a.end)
	r.Wait, r.Done = l.TTL, settled
	switch {
	case a.end && d.Op == opPSSD && d.HasOp:
		r.Op, r.Wait = opPSSDResponse, finalWait
	case a.end:
		r.Op, r.Wait = p.End, finalWait
	default:
		r.Op = p.Continue
	}
	octets, err := gsm.EncodeGSM7(a.text)
	if a.gsm7 && err == nil {
		r.DataCoding, r.Octets = p.GSM7, octets
	} else {
		r.DataCoding, r.Octets = p.UCS2, gsm.EncodeUCS2(a.text)
	}
	s.trace("ussd: out", l, r.Command, true, r.Op, r.DataCoding, len(r.Octets), r.TLVs)
	ctx, cancel := context.WithTimeout(context.Background(), writeWait)
	defer cancel()
	return s.config.Answer(ctx, r)
}

// trace logs the shape of a message, for the day a new gateway is connected: no number, no text, no subscriber's data.
func (s *Server) trace(
	message string, l *link, command smpp.CommandID, hasOp bool, op, coding byte, size int, tlvs smpp.TLVs,
) {
	if !s.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	tags := make([]string, len(tlvs))
	for i, t := range tlvs {
		tags[i] = t.Tag.String()
	}
	s.log.Debug(message, "link", l.Name, "command", command.String(), "has_op", hasOp, "op", op,
		"data_coding", coding, "octets", size, "parameters", tags)
}
