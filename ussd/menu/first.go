package menu

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/ledger"
	"zvonok/templates"
	"zvonok/ussd"
)

// lead is how many words of the menu are shown together on the first screen: meals, visits, SMS.
const lead = 3

// Shortcuts dialled after the code: *377*888*2# is the last visit, *377*888*2*1# that of the first child.
const (
	shortcutBalance = "1"
	shortcutVisit   = "2"
	shortcutMeals   = "3"
	shortcutSMS     = "4"
)

// first is the screen of a dial: what a shortcut asks for, or the child, or the children.
func (v *visitor) first(ctx context.Context) (ussd.Screen, error) {
	if len(v.Path) > 0 {
		switch v.Path[0] {
		case shortcutBalance, shortcutVisit:
			return v.oneLine(ctx, v.chosen(), v.Path[0] == shortcutBalance)
		case shortcutMeals:
			return v.mealsOf(ctx, v.chosen())
		case shortcutSMS:
			return v.bySMS(ctx, v.chosen())
		}
	}
	var screen ussd.Screen
	var err error
	if len(v.children) == 1 {
		screen, err = v.one(ctx, v.children[0], ussd.Place{})
	} else {
		screen, err = v.several(ctx)
	}
	screen.Rest = v.Path
	return screen, err
}

// chosen are the children a shortcut is about: the one whose key follows it, else all.
func (v *visitor) chosen() []access.Child {
	if len(v.Path) > 1 {
		for i, c := range v.children {
			if childKey(i) == v.Path[1] {
				return []access.Child{c}
			}
		}
	}
	return v.children
}

// childKey is the key of a child in the list. There is no child 9, since that key shows more.
func childKey(i int) string {
	if i += 1; i >= 9 {
		i++
	}
	return strconv.Itoa(i)
}

// one is the screen of one child: the answer and the menu.
func (v *visitor) one(ctx context.Context, child access.Child, place ussd.Place) (ussd.Screen, error) {
	lines, err := v.summaries(ctx, []access.Child{child})
	if err != nil {
		return ussd.Screen{}, err
	}
	words := templates.NewUSSDMenu(v.style)
	screen := ussd.Screen{Place: place, Lines: lines[0].Lines(v.style), Lead: lead, SMS: lines[0].SMS(v.style, v.config.Code)}
	key := func(key, label, to string, covered bool) {
		if covered {
			screen.Bar = append(screen.Bar, ussd.Choice{Key: key, Label: label, To: at(to, child)})
		}
	}
	key("1", words.Meals, placeMeals, child.Meals)
	key("2", words.Visits, placeVisits, child.Visits)
	key("3", words.SMS, placeSMS, true)
	key("4", words.History, placeHistory, child.Meals)
	key("5", words.TopUp, placeTopUp, child.Meals)
	key("6", words.Language, placeLanguage, true)
	key("7", words.Access, placeAccess, true)
	return screen, v.shown(ctx, "summary", child)
}

// several is the list of the children, each with its answer.
func (v *visitor) several(ctx context.Context) (ussd.Screen, error) {
	children, err := v.summaries(ctx, v.children)
	if err != nil {
		return ussd.Screen{}, err
	}
	var screen ussd.Screen
	var sms []string
	for i, line := range templates.USSDChildren(v.style, children, len("1 ")) {
		screen.Items = append(screen.Items, ussd.Choice{Key: childKey(i), Label: line, To: at(placeChild, v.children[i])})
		sms = append(sms, line)
	}
	screen.SMS = v.config.Code + ": " + strings.Join(sms, "; ")
	return screen, v.shown(ctx, "summary", v.children...)
}

// oneLine answers a shortcut: of each child the balance or the last visit, as far as the consents cover it.
func (v *visitor) oneLine(ctx context.Context, children []access.Child, balance bool) (ussd.Screen, error) {
	children = slices.DeleteFunc(slices.Clone(children), func(c access.Child) bool {
		return balance && !c.Meals || !balance && !c.Visits
	})
	if len(children) == 0 {
		return v.neutral(), nil
	}
	summaries, err := v.summaries(ctx, children)
	if err != nil {
		return ussd.Screen{}, err
	}
	screen := ussd.Screen{End: true}
	what := "visit"
	for _, c := range summaries {
		switch {
		case balance && c.Balance == nil: // which is said rather than nothing
			screen.Lines = append(screen.Lines, templates.USSDTopUp{Child: c.Child}.Lines(v.style)...)
		case balance:
			screen.Lines = append(screen.Lines, c.BalanceLine(v.style))
		default:
			screen.Lines = append(screen.Lines, c.PassLine(v.style))
		}
	}
	if balance {
		what = "balance"
	}
	screen.SMS = v.config.Code + ": " + strings.Join(screen.Lines, "; ")
	return screen, v.shown(ctx, what, children...)
}

// summaries reads the balances and the last passages of children, one row each.
func (v *visitor) summaries(ctx context.Context, children []access.Child) ([]templates.USSDChild, error) {
	var withMoney, withVisits []ledger.PersonID
	for _, c := range children {
		if c.Meals {
			withMoney = append(withMoney, c.ID)
		}
		if c.Visits {
			withVisits = append(withVisits, c.ID)
		}
	}
	batch := &pgx.Batch{}
	balances := ledger.AskBalances(batch, withMoney)
	var visits map[ledger.PersonID]door.Visit
	alone := v.config.Read.Replica() == nil // who can be asked for both at once
	if alone {
		visits = door.AskLastVisits(batch, withVisits, v.At)
	}
	if err := v.config.Pool.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("read balances and last visits: %w", err)
	}
	if !alone {
		var err error
		if visits, err = v.lastVisits(ctx, withVisits); err != nil {
			return nil, err
		}
	}
	summaries := make([]templates.USSDChild, len(children))
	for i, c := range children {
		s := templates.USSDChild{Child: name(c), Now: v.At}
		if balance, ok := balances[c.ID]; ok {
			s.Balance = &balance.Posted
		}
		if c.Visits {
			s.Pass = &templates.USSDPass{}
			if visit, ok := visits[c.ID]; ok {
				s.Now = v.At.In(visit.Zone)
				s.Pass = &templates.USSDPass{At: visit.LastAt.In(visit.Zone), In: visit.LastDirection == door.In}
			}
		}
		summaries[i] = s
	}
	v.shownChildren, v.shownSummaries = children, summaries
	return summaries, nil
}

// bySMS sends what the first screen shows of each child.
func (v *visitor) bySMS(ctx context.Context, children []access.Child) (ussd.Screen, error) {
	if len(children) > smsChildren {
		children = children[:smsChildren]
	}
	answer := templates.USSDSent{Sent: v.asked.take(v.Phone, v.At)}
	if answer.Sent {
		summaries, err := v.summaries(ctx, children)
		if err != nil {
			return ussd.Screen{}, err
		}
		if err := v.shown(ctx, "by sms", children...); err != nil {
			return ussd.Screen{}, err
		}
		for _, c := range summaries {
			if err := v.config.Send(ctx, v.Phone, c.SMS(v.style, v.config.Code)); err != nil {
				return ussd.Screen{}, err
			}
		}
	}
	return ussd.Screen{Lines: answer.Lines(v.style), End: true}, nil
}
