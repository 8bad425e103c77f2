package templates

import (
	"strconv"
	"strings"
	"time"

	"zvonok/ledger/money"
	"zvonok/templates/gsm"
)

// The texts of USSD screens are here and not in texts/*.toml, since each is bound to the room it has on a page of 70
// characters and to the key beside it: whoever changes one changes the other.

// USSDFrame is what stands round a screen: the keys that mean the same everywhere, and what is said when there is no
// screen.
type USSDFrame struct {
	More      string // "9 More", under a page that is not the last
	MoreShort string // the same on the line of a menu
	Back      string // "0 Back"
	Exit      string // "0 Exit", on the first screen
	Menu      string // "9 Menu", when the menu has no room on the first page
	Hint      string // the first line when a key leads nowhere

	Later   string // the answer did not come in time
	Expired string // a key without a dialogue; the code to dial follows
	TooMany string // the phone dials too often
	Bye     string // the person left

	GSM7 bool // all of it fits the GSM 7-bit alphabet
}

// NewUSSDFrame returns the frame in a style.
func NewUSSDFrame(s Style) USSDFrame {
	if s.Language.known() == EN {
		return USSDFrame{
			More: "9 More", MoreShort: "9 More", Back: "0 Back", Exit: "0 Exit", Menu: "9 Menu",
			Hint:    "No such key",
			Later:   "The service is busy. Please try again later.",
			Expired: "The session has expired. Please dial",
			TooMany: "Too many requests. Please try again in a minute.",
			Bye:     "Goodbye!",
			GSM7:    true,
		}
	}
	f := USSDFrame{
		More: "9 Далее", MoreShort: "9 Ещё", Back: "0 Назад", Exit: "0 Выход", Menu: "9 Меню",
		Hint:    "Нет такого пункта",
		Later:   "Сервис занят. Попробуйте позже.",
		Expired: "Сеанс истёк, наберите",
		TooMany: "Слишком много запросов. Попробуйте через минуту.",
		Bye:     "До свидания!",
	}
	if s.Latin {
		for _, text := range []*string{
			&f.More, &f.MoreShort, &f.Back, &f.Exit, &f.Menu, &f.Hint, &f.Later, &f.Expired, &f.TooMany, &f.Bye,
		} {
			*text = gsm.Transliterate(*text)
		}
		f.GSM7 = true
	}
	return f
}

// USSDMenu are the words beside the keys of the menu.
type USSDMenu struct{ Meals, Visits, SMS, History, TopUp, Language, Access string }

// NewUSSDMenu returns the words of the menu in a style.
func NewUSSDMenu(s Style) USSDMenu {
	return USSDMenu{
		Meals:    s.say("Питание", "Meals"),
		Visits:   s.say("Визиты", "Visits"),
		SMS:      "SMS",
		History:  s.say("История", "History"),
		TopUp:    s.say("Пополнить", "Top up"),
		Language: s.say("Язык", "Language"),
		Access:   s.say("Доступ", "Access"),
	}
}

// say picks the words of the style's language.
func (s Style) say(russian, english string) string {
	if s.Language.known() == EN {
		return english
	}
	return s.finish(russian)
}

// USSDPass is the last passage of a child; a zero time means that there is none.
type USSDPass struct {
	At time.Time
	In bool
}

// USSDChild is a child as the first screen shows it. What the consent does not cover is nil.
type USSDChild struct {
	Child   Name
	Balance *money.Amount
	Pass    *USSDPass
	Now     time.Time // the moment of the answer: a passage of the same day is shown without its date
}

// Lines renders the child on a screen of its own: "Маша П. 143,50 р", "Вход 08:15".
func (c USSDChild) Lines(s Style) []string {
	lines := []string{c.BalanceLine(s)}
	if pass := c.pass(s, false); pass != "" {
		lines = append(lines, capitalised(pass))
	}
	return lines
}

// SMS renders what Lines shows as a message, with the code that was dialled: "*377*888#: Маша П. 143,50 р, вход 08:15".
func (c USSDChild) SMS(s Style, code string) string {
	text := cleanCode(code) + ": " + c.BalanceLine(s)
	if pass := c.pass(s, false); pass != "" {
		text += ", " + pass
	}
	return text
}

// BalanceLine renders "Маша П. 143,50 р".
func (c USSDChild) BalanceLine(s Style) string { return c.Child.Short(s) + c.balance(s) }

// PassLine renders "Маша П. вход 08:15".
func (c USSDChild) PassLine(s Style) string {
	if pass := c.pass(s, false); pass != "" {
		return c.Child.Short(s) + " " + pass
	}
	return c.Child.Short(s)
}

func (c USSDChild) balance(s Style) string {
	if c.Balance == nil {
		return ""
	}
	return " " + s.sum(*c.Balance)
}

// pass writes the last passage: "выход 14.05 14:05", or short, as a list of several children needs it, "вых 14.05".
func (c USSDChild) pass(s Style, short bool) string {
	if c.Pass == nil {
		return ""
	}
	if c.Pass.At.IsZero() {
		return s.say("визитов нет", "no visits")
	}
	words := [...]string{s.say("вход", "entry"), s.say("выход", "exit")}
	if short {
		words = [...]string{s.say("вх", "in"), s.say("вых", "out")}
	}
	text := words[1]
	if c.Pass.In {
		text = words[0]
	}
	switch today := sameDay(c.Pass.At, c.Now); {
	case today:
		return text + " " + clock(c.Pass.At)
	case short:
		return text + " " + date(c.Pass.At)
	default:
		return text + " " + date(c.Pass.At) + " " + clock(c.Pass.At)
	}
}

// USSDChildren renders several children, a line each: "Маша П. 143,50 р вход 08:15" if all of them fit one page so,
// else as short as "Маша 143,50 вх 08:15". Keys is how many characters stand before each.
func USSDChildren(s Style, children []USSDChild, keys int) []string {
	given := map[string]int{}
	for _, c := range children {
		given[c.Child.first(s)]++
	}
	forms := [...]func(USSDChild) string{
		func(c USSDChild) string { return join(c.BalanceLine(s), c.pass(s, false)) },
		func(c USSDChild) string { return join(c.BalanceLine(s), c.pass(s, true)) },
		func(c USSDChild) string {
			name := c.Child.Short(s)
			if first := c.Child.first(s); given[first] == 1 {
				name = first
			}
			if c.Balance == nil {
				return join(name, c.pass(s, true))
			}
			sum := c.Balance.RU()
			if s.Language.known() == EN {
				sum = c.Balance.String()
			}
			return join(name, join(sum, c.pass(s, true)))
		},
	}
	lines := make([]string, len(children))
	for _, form := range forms {
		for i, c := range children {
			lines[i] = form(c)
		}
		if fitsUSSD(strings.Join(lines, "\n"), len(lines)*keys) {
			break
		}
	}
	return lines
}

// fitsUSSD says whether a text and some keys beside it fit a page of 70 characters, or of 160 in the GSM alphabet.
func fitsUSSD(text string, keys int) bool {
	if septets, ok := gsm.Septets(text); ok {
		return septets+keys <= 160
	}
	return gsm.Units(text)+keys <= 70
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + " " + b
}

// USSDRemembered are balances of a while ago, shown since newer ones cannot be read.
type USSDRemembered struct {
	Children []USSDChild // with balances and nothing else
	At       time.Time   // when they were so
	Now      time.Time
}

// Lines renders the balances and their time: "Маша П. 143,50 р", "На 12:40, новее пока нет". With a date when it is not
// today's.
func (r USSDRemembered) Lines(s Style) []string {
	lines := make([]string, 0, len(r.Children)+1)
	for _, c := range r.Children {
		lines = append(lines, c.BalanceLine(s))
	}
	at := clock(r.At)
	if !sameDay(r.At, r.Now) {
		at = date(r.At) + " " + at
	}
	return append(lines, s.say("На ", "As of ")+at+s.say(", новее пока нет", ", nothing newer yet"))
}

// USSDMeals is what a child ate on a few days, the newest first.
type USSDMeals struct {
	Child Name
	Days  []USSDMealDay
	Now   time.Time
}

// USSDMealDay is one of the days.
type USSDMealDay struct {
	Date  time.Time // any moment of it, in the organisation's zone
	Eaten []Eaten   // in the order of the day
}

// Lines renders the meals with their dishes: "Маша П. Сегодня", "Обед 110,00 р: борщ, котлета". That a meal was
// subsidised is not said, since a USSD text stands on the screen of whoever holds the phone.
func (m USSDMeals) Lines(s Style) []string { return m.lines(s, true) }

// SMS renders the meals without their dishes.
func (m USSDMeals) SMS(s Style) string { return strings.Join(m.lines(s, false), "; ") }

func (m USSDMeals) lines(s Style, dishes bool) []string {
	var lines []string
	for i, day := range m.Days {
		heading := s.weekday(day.Date) + " " + date(day.Date)
		if sameDay(day.Date, m.Now) {
			heading = s.say("Сегодня", "Today")
		}
		if i == 0 {
			heading = m.Child.Short(s) + " " + heading
		}
		if len(day.Eaten) == 0 {
			lines = append(lines, heading+": "+s.say("без питания", "no meals"))
			continue
		}
		lines = append(lines, heading)
		for _, e := range day.Eaten {
			line := capitalised(s.eaten(e))
			if e.Kind != Subsidised {
				line += " " + s.sum(e.Sum)
			}
			if list := s.dishList(e.Dishes); dishes && list != "" {
				line += ": " + list
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// dishList writes dishes in letters the style can show: "борщ, булочка x2".
func (s Style) dishList(dishes []Dish) string {
	var list []string
	for _, d := range dishes {
		name := s.letters(cleanDish(d.Name))
		if name == "" {
			continue
		}
		if d.Quantity > 1 {
			name += " x" + strconv.Itoa(d.Quantity)
		}
		list = append(list, name)
	}
	return strings.Join(list, ", ")
}

// USSDVisits are a child's visits of a few days, the newest first.
type USSDVisits struct {
	Child Name
	Days  []USSDVisitDay
	Now   time.Time
}

// USSDVisitDay is one of the days: its first entry and its last exit, zero when there was none.
type USSDVisitDay struct {
	Date    time.Time
	In, Out time.Time
	Inside  bool // the visit goes on
}

// Lines renders the visits: "Маша П. визиты", "22.11 08:15-13:40". A question mark stands for what was not recorded.
func (v USSDVisits) Lines(s Style) []string {
	lines := []string{v.Child.Short(s) + " " + s.say("визиты", "visits")}
	for _, day := range v.Days {
		in, out := "?", "?"
		if !day.In.IsZero() {
			in = clock(day.In)
		}
		if !day.Out.IsZero() && !day.Inside {
			out = clock(day.Out)
		}
		stay := in + "-" + out
		switch {
		case day.In.IsZero() && day.Out.IsZero():
			stay = s.say("нет", "none")
		case day.Inside:
			stay = in + "-"
		}
		lines = append(lines, date(day.Date)+" "+stay)
	}
	return lines
}

// SMS renders the visits as a message.
func (v USSDVisits) SMS(s Style) string { return strings.Join(v.Lines(s), "; ") }

// USSDSMS is the switch of SMS about a child.
type USSDSMS struct {
	Child Name
	On    bool
}

// Lines renders what is set: "Маша П. SMS включены".
func (m USSDSMS) Lines(s Style) []string {
	if m.On {
		return []string{m.Child.Short(s) + s.say(" SMS включены", " SMS are on")}
	}
	return []string{m.Child.Short(s) + s.say(" SMS выключены", " SMS are off")}
}

// Switch renders the key that changes it.
func (m USSDSMS) Switch(s Style) string {
	if m.On {
		return s.say("Выключить", "Switch off")
	}
	return s.say("Включить", "Switch on")
}

// USSDMovement is one movement of an account.
type USSDMovement struct {
	At     time.Time
	Kind   string // of the books: topup, buffet, hot, refund, transfer, correction, reversal; others read as a movement
	Amount money.Amount
}

// USSDHistory is a child's balance and the last movements, the newest first.
type USSDHistory struct {
	Child     Name
	Balance   money.Amount
	Movements []USSDMovement
}

// Lines renders the account: "Маша П. 143,50 р", "22.11 -70,00 буфет".
func (h USSDHistory) Lines(s Style) []string {
	lines := []string{h.Child.Short(s) + " " + s.sum(h.Balance)}
	for _, m := range h.Movements {
		sum := m.Amount.RU()
		if s.Language.known() == EN {
			sum = m.Amount.String()
		}
		if m.Amount > 0 {
			sum = "+" + sum
		}
		lines = append(lines, date(m.At)+" "+sum+" "+s.kind(m.Kind))
	}
	if len(h.Movements) == 0 {
		lines = append(lines, s.say("Движений нет", "No movements"))
	}
	return lines
}

// SMS renders the account as a message.
func (h USSDHistory) SMS(s Style) string { return strings.Join(h.Lines(s), "; ") }

func (s Style) kind(kind string) string {
	switch kind {
	case "topup", "release":
		return s.say("пополнение", "top-up")
	case "buffet":
		return s.say("буфет", "buffet")
	case "hot":
		return s.say("питание", "meal")
	case "refund":
		return s.say("возврат", "refund")
	case "transfer":
		return s.say("перевод", "transfer")
	case "correction":
		return s.say("исправление", "correction")
	case "reversal":
		return s.say("отмена", "reversal")
	default:
		return s.say("операция", "operation")
	}
}

// USSDTopUp says how to top a child's account up.
type USSDTopUp struct {
	Child   Name
	Account string // "" when the child has none
	Payee   string // the payment code of the payee, "" when it is not known
}

// Lines renders what a terminal asks for, with the item of its menu (R33).
func (t USSDTopUp) Lines(s Style) []string {
	if t.Account == "" {
		return []string{t.Child.Short(s) + ": " + s.say("счёта нет, обратитесь в школу", "no account, please ask the school")}
	}
	code := ""
	if t.Payee != "" {
		code = s.say("код ", "code ") + cleanCode(t.Payee) + ", "
	}
	return []string{
		t.Child.Short(s) + s.say(" счёт ", " account ") + cleanCode(t.Account),
		s.say("Банк: ", "Bank: ") + code + s.say("Оплата школьного питания", "Oplata shkolnogo pitaniya"),
	}
}

// SMS renders it as a message.
func (t USSDTopUp) SMS(s Style) string { return strings.Join(t.Lines(s), "; ") }

// USSDLanguages are the words of the choice of a language; each is in its own, so that whoever cannot read the others
// finds it.
type USSDLanguages struct{ Title, Russian, English, Latin string }

// NewUSSDLanguages returns them in a style.
func NewUSSDLanguages(s Style) USSDLanguages {
	return USSDLanguages{
		Title:   s.say("Язык / Language", "Language"),
		Russian: s.say("Русский", "Russian"),
		English: "English",
		Latin:   s.say("Русский латиницей", "Russian in Latin letters"),
	}
}

// USSDCircle are the others who may see a child's data.
type USSDCircle struct {
	Child  Name
	People []USSDPerson
}

// USSDPerson is one of them.
type USSDPerson struct {
	Name  Name
	Legal bool // a legal representative, otherwise a trusted person
}

// Lines renders them: "Маша П. доступ", "Олег П. представитель".
func (c USSDCircle) Lines(s Style) []string {
	lines := []string{c.Child.Short(s) + " " + s.say("доступ", "access")}
	for _, p := range c.People {
		role := s.say("доверенное лицо", "trusted person")
		if p.Legal {
			role = s.say("представитель", "representative")
		}
		lines = append(lines, p.Name.Short(s)+" "+role)
	}
	if len(c.People) == 0 {
		lines = append(lines, s.say("Больше ни у кого нет", "Nobody else has it"))
	}
	return lines
}

// USSDSent answers a person who asked for an SMS.
type USSDSent struct {
	Sent bool // false: the phone has had its number of them for the day
}

// Lines renders the answer.
func (m USSDSent) Lines(s Style) []string {
	if m.Sent {
		return []string{s.say("Ответ придёт по SMS", "The answer comes by SMS")}
	}
	return []string{s.say("Лимит SMS на сегодня исчерпан", "The limit of SMS for today is reached")}
}
