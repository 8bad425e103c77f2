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
	What       string // pass, sale, ...: the type the device reported, or that of a fact that no device did
	Number     int64  // the device's own
	Device     string // "": none reported it
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
	DecidedAt      time.Time
	Stages         []ExplainedStage
	Message        *ExplainedMessage
	Digests        []ExplainedDigest // that tell it instead
}

// ExplainedStage is what one stage of the way from a fact to a message decided
// (notices.md, From fact to message).
type ExplainedStage struct {
	Stage   string     `json:"stage"`             // consent, right_to_know, ... route
	Verdict string     `json:"verdict"`           // passed, refused, not_asked, exempt, or a word of the stage's own
	Why     string     `json:"why,omitzero"`      // the reason of a refusal
	Role    string     `json:"role,omitzero"`     // right_to_know: legal or trusted
	Until   *time.Time `json:"until,omitzero"`    // quiet_hours: put off until then; merge: waits until then
	Channel string     `json:"channel,omitzero"`  // fallback: the next one, or the one this stands in for
	Others  int        `json:"others,omitzero"`   // merge: news of siblings in the same message
	Count   int        `json:"count,omitzero"`    // cap: the message's number in the phone's day
	Limit   int        `json:"limit,omitzero"`    // cap
	Digests []string   `json:"digests,omitempty"` // digest: day, week
	Words   string     `json:"words"`             // the same in words
}

// ExplainedDigest is what became of a digest that tells of the event.
type ExplainedDigest struct {
	Kind     string     // day or week
	Day      time.Time  // of its making
	Verdict  string     // "" while it is to come
	MadeAt   *time.Time // nil while it is to come
	Messages []ExplainedMessage
}

// ExplainedMessage is one delivery.
type ExplainedMessage struct {
	ID         int64
	MadeAt     time.Time
	Channel    string
	Address    string // masked
	Operator   string // of an SMS
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
	var lines []string
	if e.Device == "" {
		lines = []string{
			s.format("Событие %d: %s", "Event %d: %s", e.ID, s.word(eventWords, e.What)),
			s.format("  произошло %s", "  happened %s", s.exact(e.At)),
		}
	} else {
		lines = []string{
			s.format("Событие %d: %s, № %d с устройства «%s», здание %s", "Event %d: %s, number %d of the device “%s”, building %s",
				e.ID, s.word(eventWords, e.What), e.Number, cleanDish(e.Device), e.Building),
			s.format("  произошло %s", "  happened %s", s.exact(e.At)),
			s.format("  получено %s (%s): %s", "  received %s (%s): %s",
				s.exact(e.ReceivedAt), s.later(e.ReceivedAt.Sub(e.At)), s.word(eventStates, e.State)),
		}
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
	if len(r.Stages) > 0 {
		lines = append(lines, s.format("    решено %s:", "    decided %s:", s.exact(r.DecidedAt)))
	}
	for _, stage := range r.Stages {
		if stage.Verdict != "not_asked" {
			lines = append(lines, "      "+stage.Say(s.Language))
		}
	}
	if r.Message != nil {
		lines = append(lines, s.explained(e.At, *r.Message, "    ")...)
	}
	for _, d := range r.Digests {
		lines = append(lines, "    "+s.digestLine(d))
		for _, m := range d.Messages {
			lines = append(lines, s.explained(e.At, m, "      ")...)
		}
	}
	return lines
}

// digestLine says what became of a digest.
func (s Style) digestLine(d ExplainedDigest) string {
	name := s.word(digestWords, d.Kind)
	switch {
	case d.MadeAt == nil:
		return s.format("%s: ещё впереди", "%s: still to come", name)
	case d.Verdict == "told":
		return s.format("%s %s: составлена %s", "%s %s: made %s", name, d.Day.Format("02.01.2006"), s.exact(*d.MadeAt))
	default:
		return s.format("%s %s: не отправлена, %s", "%s %s: not sent, %s",
			name, d.Day.Format("02.01.2006"), s.word(verdictWords, d.Verdict))
	}
}

// Say says what a stage decided, as a secretary would.
func (e ExplainedStage) Say(l Language) string {
	s := Style{Language: l}
	name := s.word(stageWords, e.Stage)
	text := s.word(outcomeWords, e.Stage+" "+e.Verdict)
	switch {
	case e.Verdict == "not_asked":
		text = s.say("не проверялось: отказ раньше", "not asked: refused before")
	case e.Stage == "cap" && e.Verdict != "exempt":
		text = s.format(text, text, e.Count, e.Limit)
	case e.Why == "in_digest":
		text = s.word(verdictWords, e.Why)
	case e.Verdict == "refused":
		text = s.format("отказ (%s)", "refused (%s)", s.word(verdictWords, e.Why))
	case e.Role != "":
		text = s.word(roleWords, e.Role)
	case e.Until != nil:
		text += " " + s.exact(*e.Until)
	case e.Channel != "":
		text += " " + s.word(channelWords, e.Channel)
	case e.Others > 0:
		text += fmt.Sprintf(": %d", e.Others)
	case len(e.Digests) > 0:
		var names []string
		for _, kind := range e.Digests {
			names = append(names, s.word(digestWords, kind))
		}
		text += " " + strings.Join(names, ", ")
	}
	return name + ": " + text
}

// explained tells of a message and what followed it.
func (s Style) explained(since time.Time, m ExplainedMessage, indent string) []string {
	line := s.format("сообщение %d на %s, %s, новость до %s", "message %d to %s, %s, news until %s",
		m.ID, m.Address, s.later(m.MadeAt.Sub(since)), s.exact(m.Expires))
	if m.Operator != "" {
		line += s.format(", оператор %s", ", by the operator %s", m.Operator)
	}
	if m.Siblings > 0 {
		line += s.say("; в нём же о других детях семьи", "; it tells of siblings, too")
	}
	if m.Resent {
		line += s.say("; отправлено повторно: судьба первой отправки неизвестна", "; sent once more, the fate of the first time is unknown")
	}
	if m.Reason != "" {
		line += " (" + s.word(verdictWords, m.Reason) + ")"
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
			line += " " + s.receipt(*p.DoneAt)
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
	if m.SettledAt != nil && (m.State == "delivered" || m.State == "failed" || m.State == "recalled" || m.State == "unproved") {
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

// receipt writes the moment a receipt gives, which most operators tell to the
// minute: with seconds it would seem to lie before the submission.
func (s Style) receipt(t time.Time) string {
	if t.Second() == 0 {
		return t.Format("02.01.2006 15:04")
	}
	return s.exact(t)
}

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
		"topup": {"пополнение", "top-up"}, "movement": {"движение по счёту", "movement of an account"},
		"threshold": {"порог баланса", "threshold"}, "absence": {"нет отметки о приходе", "no arrival"},
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
		"unproved":   {"принято оператором, доставка не доказана", "taken by the operator, delivery was never proved"},
		"partial":    {"доставлено не целиком", "delivered in part"},
		"unknown":    {"неизвестно, ушло ли: ответа не было", "nobody knows whether it left: there was no answer"},
		"failed":     {"не доставлено", "not delivered"},
		"stale":      {"не отправлено: новость устарела", "not sent: it was no news any more"},
		"recalled":   {"отозвано", "recalled"},
	}
	partWords = bilingual{
		"refused": {"не принята", "refused"}, "accepted": {"принята", "accepted"}, "enroute": {"в пути", "on its way"},
		"unknown":   {"неизвестно, что с ней", "nobody knows what became of it"},
		"delivered": {"доставлена", "delivered"}, "undelivered": {"не доставлена", "not delivered"},
		"expired": {"срок истёк", "expired"}, "deleted": {"отменена", "deleted"}, "rejected": {"отвергнута", "rejected"},
	}
	digestWords = bilingual{"day": {"сводка за день", "digest of the day"}, "week": {"сводка за неделю", "digest of the week"}}
	roleWords   = bilingual{
		"legal": {"да, законный представитель", "yes, a legal representative"}, "trusted": {"да, доверенное лицо", "yes, a trusted person"},
	}
	stageWords = bilingual{
		"consent":            {"согласие родителей", "parents' consent"},
		"right_to_know":      {"право знать о ребёнке", "right to know of the child"},
		"subscription":       {"подписка", "subscription"},
		"address":            {"адрес", "address"},
		"freshness":          {"свежесть", "freshness"},
		"quiet_hours":        {"тихие часы", "quiet hours"},
		"opt_out_and_health": {"приём сообщений", "taking messages"},
		"fallback":           {"запасной канал", "fall-back"},
		"cap":                {"дневной лимит", "daily limit"},
		"merge":              {"братья и сёстры", "siblings"},
		"digest":             {"сводка", "digest"},
		"text":               {"текст", "text"},
		"route":              {"путь", "route"},
	}
	// What a stage decided, by its name and its word for it.
	outcomeWords = bilingual{
		"consent passed":            {"есть", "there is one"},
		"right_to_know passed":      {"да", "yes"},
		"subscription passed":       {"хочет узнавать сразу", "wants to know at once"},
		"subscription always":       {"тревогу сообщают всем законным представителям", "an alarm is told to all legal representatives"},
		"address passed":            {"есть", "there is one"},
		"freshness passed":          {"ещё новость", "still news"},
		"quiet_hours passed":        {"сейчас их нет", "none at this time"},
		"quiet_hours exempt":        {"такие новости не откладывают", "this kind of news is never put off"},
		"quiet_hours deferred":      {"отложено до", "put off until"},
		"opt_out_and_health passed": {"включён", "nothing against it"},
		"fallback next":             {"если не получится,", "if this fails,"},
		"fallback taken_over":       {"вместо этого", "instead of this,"},
		"fallback instead":          {"вместо канала", "in place of"},
		"cap passed":                {"сообщение № %d из %d", "message number %d of %d"},
		"cap exempt":                {"не считается", "not counted"},
		"cap refused":               {"исчерпан: сообщение № %d, можно %d", "reached: message number %d, %d allowed"},
		"cap notice":                {"исчерпан: сообщение № %d, можно %d; вместо новости телефону сказано о лимите", "reached: message number %d, %d allowed; the phone is told so instead of the news"},
		"merge passed":              {"одновременных новостей о них нет", "no news of them at this time"},
		"merge exempt":              {"такие новости сообщают отдельно", "this kind of news stands alone"},
		"merge merged":              {"в одном сообщении, ещё новостей", "in one message, further news"},
		"merge joined":              {"добавлено к сообщению, которое ещё ждало отправки; других новостей в нём", "joined a message that still waited; other news in it"},
		"merge waits":               {"ждёт новостей о них до", "waits for news of them until"},
		"digest kept":               {"об этом скажет", "told by the"},
		"digest none":               {"этот человек сводок о ребёнке не получает", "this person gets no digest of the child"},
		"text passed":               {"составлен", "made"},
		"route passed":              {"найден", "found"},
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
		"not_subscribed":     {"нет подписки на такие новости", "this person does not want this kind of news"},
		"in_digest":          {"такие новости нужны не сразу, а в сводке", "this person wants this kind of news in a digest, not at once"},
		"no_address":         {"нет адреса для выбранного канала", "there is no address for the channel this person chose"},
		"stale":              {"новость пришла слишком поздно, чтобы сообщать её отдельно", "it was no longer news when it came"},
		"moved":              {"вошёл в другое здание этой же организации, о выходе не сообщают", "went into another building of the organisation, so leaving is not told"},
		"opted_out":          {"на этот адрес сообщения отключены", "the address has asked for no more messages"},
		"unreachable":        {"адрес не принимает сообщений", "the address has refused messages for good"},
		"unconfirmed":        {"номер мог сменить владельца и ждёт подтверждения", "the phone may be in other hands and waits to be confirmed"},
		"capped":             {"дневной лимит SMS исчерпан, новость будет в сводке за день", "the phone has had its number of messages for the day; it goes to the day's digest"},
		"no_route":           {"ни один оператор не обслуживает этот номер", "no operator takes this number"},
		"nothing":            {"ничего не произошло, сводки нет", "nothing happened, so there was no digest"},
	}
)
