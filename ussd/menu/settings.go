package menu

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/ledger/pg"
	"zvonok/templates"
	"zvonok/ussd"
)

// sms shows whether SMS about a child are on, and the key that switches them. They are off, whatever the wishes, while
// the phone has said STOP.
func (v *visitor) sms(ctx context.Context, child access.Child) (ussd.Screen, error) {
	wishes, err := subscription.Of(ctx, v.config.Pool, v.who.ID, child.ID)
	if err != nil {
		return ussd.Screen{}, err
	}
	stopped, err := v.stopped(ctx, v.config.Pool)
	if err != nil {
		return ussd.Screen{}, err
	}
	v.config.Metrics.shown("sms")
	return v.smsScreen(child, !stopped && slices.ContainsFunc(wishes, bySMS)), nil
}

// stopped says whether the phone has said STOP.
func (v *visitor) stopped(ctx context.Context, q pg.Querier) (bool, error) {
	health, err := delivery.HealthOf(ctx, q, subscription.SMS, []string{string(v.Phone)})
	return health[string(v.Phone)].OptedOut, err
}

func (v *visitor) smsScreen(child access.Child, on bool) ussd.Screen {
	state := templates.USSDSMS{Child: name(child), On: on}
	to := placeSMSOn
	if on {
		to = placeSMSOff
	}
	return ussd.Screen{
		Place: at(placeSMS, child), Lines: state.Lines(v.style),
		Items: []ussd.Choice{{Key: "1", Label: state.Switch(v.style), To: at(to, child)}},
	}
}

// switchSMS takes the wishes for SMS about a child away, or puts in what a new representative has: passes and top-ups
// at the moment they happen (notices.md). Wishes for other channels stay. Switching on takes a STOP back, as START by
// SMS does. Repeating it changes nothing.
func (v *visitor) switchSMS(ctx context.Context, child access.Child, on bool) (ussd.Screen, error) {
	err := pgx.BeginFunc(ctx, v.config.Pool, func(tx pgx.Tx) error {
		stopped, err := v.stopped(ctx, tx)
		if err != nil {
			return err
		}
		if stopped && on {
			if err := delivery.OptIn(ctx, tx, subscription.SMS, string(v.Phone)); err != nil {
				return err
			}
		}
		wishes, err := subscription.Of(ctx, tx, v.who.ID, child.ID)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(wishes, bySMS) == on {
			return nil
		}
		wishes = slices.DeleteFunc(wishes, bySMS)
		if on {
			wishes = append(wishes,
				subscription.Subscription{Topic: subscription.Pass, Channel: subscription.SMS, Mode: subscription.Now},
				subscription.Subscription{Topic: subscription.TopUp, Channel: subscription.SMS, Mode: subscription.Now},
			)
		}
		return subscription.Set(ctx, tx, v.who.ID, child.ID, wishes, v.At)
	})
	if err != nil {
		return ussd.Screen{}, err
	}
	v.config.Metrics.shown("sms")
	return v.smsScreen(child, on), nil
}

func bySMS(s subscription.Subscription) bool { return s.Channel == subscription.SMS }

// language shows the choice of a language.
func (v *visitor) language() ussd.Screen {
	words := templates.NewUSSDLanguages(v.style)
	v.config.Metrics.shown("language")
	return ussd.Screen{
		Place: v.Place, Lines: []string{words.Title},
		Items: []ussd.Choice{
			{Key: "1", Label: words.Russian, To: ussd.Place{Name: placeRussian}},
			{Key: "2", Label: words.English, To: ussd.Place{Name: placeEnglish}},
			{Key: "3", Label: words.Latin, To: ussd.Place{Name: placeLatin}},
		},
	}
}

// setLanguage stores the chosen language, for SMS and letters too, and shows the first screen in it.
func (v *visitor) setLanguage(ctx context.Context) (ussd.Screen, error) {
	reading := access.Reading{Email: v.who.Email, Language: string(templates.RU)}
	switch v.Place.Name {
	case placeEnglish:
		reading.Language = string(templates.EN)
	case placeLatin:
		reading.Translit = true
	}
	err := pgx.BeginFunc(ctx, v.config.Pool, func(tx pgx.Tx) error {
		return access.SetReading(ctx, tx, v.who.ID, reading, v.At)
	})
	if err != nil {
		return ussd.Screen{}, err
	}
	v.style.Language, v.style.Latin = templates.Language(reading.Language), v.Latin || reading.Translit
	v.Path = nil
	return v.first(ctx)
}

// circle shows who else has access to a child's data.
func (v *visitor) circle(ctx context.Context, child access.Child) (ussd.Screen, error) {
	members, err := access.Circle(ctx, v.config.Pool, child.ID)
	if err != nil {
		return ussd.Screen{}, err
	}
	circle := templates.USSDCircle{Child: name(child)}
	for _, m := range members {
		// A companion leads the child and sees nothing.
		if m.Role == access.Companion || m.Representative == v.who.ID || !m.Live(v.At) {
			continue
		}
		circle.People = append(circle.People, templates.USSDPerson{
			Name:  templates.Name{Given: m.Names.Given, Family: m.Names.Family},
			Legal: m.Role == access.Legal,
		})
	}
	screen := ussd.Screen{Place: v.Place, Lines: circle.Lines(v.style)}
	return screen, v.shown(ctx, "access", child)
}
