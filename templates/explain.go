package templates

import (
	"fmt"
	"strings"
	"time"
)

// Explanation is everything on record of one event, for a school secretary who
// is asked "why did I get no message". It names nobody: people are numbers,
// phones are masked, texts are left out. Times are printed in the zone they have.
type Explanation struct {
	ID         int64
	What       string // pass, sale, ...: the type the device reported
	Number     int64  // the device's own
	Device     string
	Building   string
	At         time.Time
	ReceivedAt time.Time
	State      string // acknowledged, rejected, cancelled
	Rejected   string // why; "" when it was not
	Conflicts  int    // further contents the device sent under the number
	Recipients []ExplainedRecipient
}

// ExplainedRecipient is what became of the event for one recipient and channel.
type ExplainedRecipient struct {
	Representative int64 // 0: nobody
	Child          string
	Topic          string
	Channel        string // "" when no channel was chosen yet
	Verdict        string
	Message        *ExplainedMessage
}

// ExplainedMessage is one delivery.
type ExplainedMessage struct {
	ID         int64
	MadeAt     time.Time
	Channel    string
	Address    string // masked
	State      string
	Reason     string // the operator's or the relay's, for an engineer
	SettledAt  *time.Time
	Expires    time.Time
	Resent     bool
	Siblings   int // events that the same message tells of, too
	Parts      []ExplainedPart
	FellBackAt *time.Time
	Next       *ExplainedMessage // by the next channel
}

// ExplainedPart is one part on its way.
type ExplainedPart struct {
	Attempt, Number, Count int
	By                     string // the operator, "mail" or "push"
	MessageID              string
	State, Error           string
	SubmittedAt            time.Time
	DoneAt                 *time.Time
}

// Lines tells it in words, a line each, indented by what belongs to what.
func (e Explanation) Lines(l Language) []string {
	s := Style{Language: l}
	lines := []string{
		s.format("Событие %d: %s, № %d с устройства «%s», здание %s", "Event %d: %s, number %d of the device “%s”, building %s",
			e.ID, s.word(eventWords, e.What), e.Number, cleanDish(e.Device), e.Building),
		s.format("  произошло %s", "  happened %s", s.exact(e.At)),
		s.format("  получено %s (%s): %s", "  received %s (%s): %s",
			s.exact(e.ReceivedAt), s.later(e.ReceivedAt.Sub(e.At)), s.word(eventStates, e.State)),
	}
	if e.Rejected != "" {
		lines = append(lines, s.format("  причина: %s", "  reason: %s", e.Rejected))
	}
	if e.Conflicts > 0 {
		lines = append(lines, s.format("  под этим номером устройство присылало и другое содержание, раз: %d",
			"  the device sent other contents under this number, times: %d", e.Conflicts))
	}
	if len(e.Recipients) == 0 {
		lines = append(lines, s.say("  никому не сообщалось: о таком не сообщают, или очередь ещё не дошла",
			"  told to nobody: this kind is told to nobody, or its turn has not come yet"))
	}
	for _, r := range e.Recipients {
		lines = append(lines, s.recipient(e, r)...)
	}
	return lines
}

func (s Style) recipient(e Explanation, r ExplainedRecipient) []string {
	who := s.format("представитель %d", "representative %d", r.Representative)
	if r.Representative == 0 {
		who = s.say("никто", "nobody")
	}
	if r.Channel != "" {
		who += ", " + s.word(channelWords, r.Channel)
	}
	verdict := VerdictWords(s.Language, r.Verdict)
	if r.Message != nil && r.Verdict == "told" {
		verdict = s.state(*r.Message)
	}
	lines := []string{s.format("  %s; ребёнок %s, %s: %s", "  %s; child %s, %s: %s", who, r.Child, s.word(topicWords, r.Topic), verdict)}
	if r.Message != nil {
		lines = append(lines, s.explained(e.At, *r.Message, "    ")...)
	}
	return lines
}

// explained tells of a message and what followed it.
func (s Style) explained(since time.Time, m ExplainedMessage, indent string) []string {
	line := s.format("сообщение %d на %s, %s, новость до %s", "message %d to %s, %s, news until %s",
		m.ID, m.Address, s.later(m.MadeAt.Sub(since)), s.exact(m.Expires))
	if m.Siblings > 0 {
		line += s.say("; в нём же о других детях семьи", "; it tells of siblings, too")
	}
	if m.Resent {
		line += s.say("; отправлено повторно: судьба первой отправки неизвестна", "; sent once more, the fate of the first time is unknown")
	}
	if m.Reason != "" {
		line += " (" + m.Reason + ")"
	}
	lines := []string{indent + line}
	for _, p := range m.Parts {
		line := s.format("попытка %d, часть %d из %d, %s, %s", "attempt %d, part %d of %d, %s, %s",
			p.Attempt, p.Number, p.Count, p.By, s.exact(p.SubmittedAt))
		if p.MessageID != "" {
			line += s.format(", номер %s", ", id %s", p.MessageID)
		}
		line += ": " + s.word(partWords, p.State)
		if p.DoneAt != nil {
			line += " " + s.exact(*p.DoneAt)
		}
		if p.Error != "" {
			line += " (" + p.Error + ")"
		}
		lines = append(lines, indent+line)
	}
	if m.FellBackAt == nil {
		return lines
	}
	if m.Next == nil {
		return append(lines, indent+s.format("%s: запасной канал тоже не принимает сообщений", "%s: the next channel takes no messages either",
			s.exact(*m.FellBackAt)))
	}
	lines = append(lines, indent+s.format("%s: ушло запасным каналом, %s: %s", "%s: went by the next channel, %s: %s",
		s.exact(*m.FellBackAt), s.word(channelWords, m.Next.Channel), s.state(*m.Next)))
	return append(lines, s.explained(since, *m.Next, indent+"  ")...)
}

// state says where a message stands.
func (s Style) state(m ExplainedMessage) string {
	state := m.State
	if state == "sent" {
		state += "_" + m.Channel
	}
	text := s.word(stateWords, state)
	if m.SettledAt != nil && (m.State == "delivered" || m.State == "failed" || m.State == "recalled") {
		text += " " + s.exact(*m.SettledAt)
	}
	return text
}

// VerdictWords says why somebody was told, or was not, as a secretary would.
func VerdictWords(l Language, verdict string) string {
	return Style{Language: l}.word(verdictWords, verdict)
}

// bilingual are words in Russian and in English.
type bilingual map[string][2]string

// word returns a word, or the key of one that is not in the list.
func (s Style) word(list bilingual, k string) string {
	w, ok := list[k]
	if !ok {
		return k
	}
	return s.say(w[0], w[1])
}

func (s Style) format(russian, english string, args ...any) string {
	return fmt.Sprintf(s.say(russian, english), args...)
}

// exact writes a moment to the second.
func (s Style) exact(t time.Time) string { return t.Format("02.01.2006 15:04:05") }

// later writes how long after the event something was.
func (s Style) later(d time.Duration) string {
	switch {
	case d < 0:
		return s.say("часы устройства спешили", "the device's clock was fast")
	case d < 10*time.Second:
		text := fmt.Sprintf("%.1f", d.Seconds())
		return s.format("через %s с", "%s s later", strings.ReplaceAll(text, ".", s.say(",", ".")))
	case d < 2*time.Minute:
		return s.format("через %d с", "%d s later", int(d.Seconds()))
	case d < 2*time.Hour:
		return s.format("через %d мин", "%d min later", int(d.Minutes()))
	default:
		return s.format("через %d ч", "%d h later", int(d.Hours()))
	}
}

var (
	eventWords = bilingual{
		"pass": {"проход", "pass"}, "admitted": {"пропуск без карты", "let in without a card"}, "sale": {"покупка", "sale"},
		"reversal": {"отмена покупки", "reversal of a sale"}, "denied": {"отказ на входе", "refused at the door"},
	}
	eventStates = bilingual{
		"acknowledged": {"принято", "accepted"}, "rejected": {"отклонено", "rejected"}, "cancelled": {"отменено", "cancelled"},
	}
	channelWords = bilingual{
		"sms": {"SMS", "SMS"}, "email": {"письмо", "e-mail"}, "push": {"уведомление в браузере", "push message"},
	}
	topicWords = bilingual{
		"pass": {"проход", "pass"}, "hot": {"горячее питание", "hot meal"}, "buffet": {"буфет", "buffet"},
		"subsidised": {"питание за счёт города", "meal the city pays for"}, "topup": {"пополнение", "top-up"},
		"threshold": {"порог баланса", "threshold"}, "alarm": {"тревога", "alarm"}, "absence": {"нет отметки о приходе", "no arrival"},
		"blocked": {"отклонённая покупка", "refused purchase"},
	}
	stateWords = bilingual{
		"queued":     {"ждёт отправки", "waits to be sent"},
		"sending":    {"отправляется", "is being sent"},
		"sent_sms":   {"принято оператором, подтверждения доставки ещё нет", "taken by the operator, not proved to be delivered yet"},
		"sent_email": {"передано почтовому серверу", "taken by the mail server"},
		"sent_push":  {"передано браузеру, показ ещё не подтверждён", "taken by the push service, not proved to be shown yet"},
		"delivered":  {"доставлено", "delivered"},
		"partial":    {"доставлено не целиком", "delivered in part"},
		"unknown":    {"неизвестно, ушло ли: ответа не было", "nobody knows whether it left: there was no answer"},
		"failed":     {"не доставлено", "not delivered"},
		"stale":      {"не отправлено: новость устарела", "not sent: it was no news any more"},
		"recalled":   {"отозвано", "recalled"},
	}
	partWords = bilingual{
		"refused": {"не принята", "refused"}, "accepted": {"принята", "accepted"}, "enroute": {"в пути", "on its way"},
		"delivered": {"доставлена", "delivered"}, "undelivered": {"не доставлена", "not delivered"},
		"expired": {"срок истёк", "expired"}, "deleted": {"отменена", "deleted"}, "rejected": {"отвергнута", "rejected"},
	}
	verdictWords = bilingual{
		"told":               {"сообщение составлено", "a message was made"},
		"no_listener":        {"у ребёнка нет представителей в базе", "the child has no representative on record"},
		"not_consented":      {"согласие не распространяется на такие новости", "the consent does not cover this kind of news"},
		"no_consent":         {"нет согласия законного представителя", "no legal representative has consented to messages about this child"},
		"consent_expired":    {"срок согласия истёк", "the consent has run out"},
		"consent_withdrawn":  {"согласие отозвано", "the consent was withdrawn"},
		"not_representative": {"нет права знать об этом ребёнке", "this person may not know of the child"},
		"removed":            {"доступ закрыт", "this person was excluded"},
		"expired":            {"срок доступа истёк", "this person's right has run out"},
		"not_subscribed":     {"нет подписки на такие новости сразу", "this person does not want this kind of news at once"},
		"no_address":         {"нет адреса для выбранного канала", "there is no address for the channel this person chose"},
		"stale":              {"новость пришла поздно, она будет в сводке за день", "it was no longer news when it came; it goes to the day's digest"},
		"opted_out":          {"на этот адрес сообщения отключены", "the address has asked for no more messages"},
		"unreachable":        {"адрес не принимает сообщений", "the address has refused messages for good"},
		"capped":             {"дневной лимит SMS исчерпан, новость будет в сводке за день", "the phone has had its number of messages for the day; it goes to the day's digest"},
		"nothing":            {"ничего не произошло, сводки нет", "nothing happened, so there was no digest"},
	}
)
