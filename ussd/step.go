package ussd

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
)

// move is the outcome of a step: where the dialogue stands now and what the phone is told.
type move struct {
	stand
	answer answer
	ending ending // "" while the dialogue goes on
}

// walker makes one step of one dialogue. It works on a copy of where the dialogue stands.
type walker struct {
	server *Server
	ctx    context.Context
	visit  Visit // all but the place
	link   *link
	alone  bool // the answer closes the dialogue
	stand  stand
}

// step asks the menu what follows from a begin or a key. A panic of the menu is an error of this step: it costs one
// dialogue, not the process.
func (s *Server) step(ctx context.Context, t *turn, from stand) (m move, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
		}
	}()
	d := t.dialogue
	w := walker{
		server: s, ctx: ctx, stand: from, link: d.link, alone: d.link.AnswerAndClose || t.once,
		visit: Visit{Link: d.link.Name, Phone: d.phone, Latin: d.latin, Hint: d.hint, SIM: d.sim, At: s.config.Now()},
	}
	var why ending
	if t.kind == begin {
		err = w.dial(t.path)
	} else {
		why, err = w.press(t.pressed)
	}
	if err != nil {
		return move{}, err
	}
	m = move{stand: w.stand, ending: why}
	if why != "" {
		m.answer = s.sentence(w.stand.screen.Style, sayBye)
		return m, nil
	}
	last := w.alone || w.stand.screen.End && w.stand.page.last
	if last {
		m.ending = endedFinished
	}
	m.answer = answer{text: w.stand.page.text, gsm7: w.stand.page.gsm7, end: last}
	return m, nil
}

// dial shows the first screen, or the one a shortcut leads to, and presses what was dialled beyond it.
func (w *walker) dial(path []string) error {
	w.visit.Path = path
	if err := w.show(Place{}); err != nil {
		return err
	}
	w.visit.Path = nil
	for _, key := range w.stand.screen.Rest {
		if !w.leads(key) {
			break
		}
		if _, err := w.press(key); err != nil {
			return err
		}
	}
	return nil
}

// press does what a key means on the page shown. The ending is not "" when the person leaves, or is made to.
func (w *walker) press(key string) (ending, error) {
	at := &w.stand
	choice, chosen := at.screen.choice(key)
	switch {
	case key == keyFirst:
		at.places = nil
		return "", w.show(Place{})
	case key == keyBack && len(at.pages) > 0:
		from := at.pages[len(at.pages)-1]
		at.pages = at.pages[:len(at.pages)-1]
		w.turnTo(from, "")
	case key == keyBack && len(at.places) == 0:
		return endedLeft, nil
	case key == keyBack:
		back := at.places[len(at.places)-1]
		at.places = at.places[:len(at.places)-1]
		return "", w.show(back)
	case key == keyMore && !at.page.last:
		at.pages = append(slices.Clip(at.pages), at.page.from)
		w.turnTo(at.page.next, "")
	case chosen:
		return "", w.enter(choice.To)
	default:
		if at.wrong++; at.wrong > maxHints {
			return endedWrong, nil
		}
		w.turnTo(at.page.from, w.server.frame(at.screen.Style).Hint)
		return "", nil
	}
	at.wrong = 0
	return "", nil
}

// leads says whether a key does anything but leave here.
func (w *walker) leads(key string) bool {
	_, chosen := w.stand.screen.choice(key)
	return chosen || key == keyMore && !w.stand.page.last
}

// enter goes on to another screen and remembers this one. A choice that acts and shows the same screen again, and one
// that leads to the first screen, leave nothing to go back to.
func (w *walker) enter(place Place) error {
	screen, err := w.ask(place)
	if err != nil {
		return err
	}
	switch here := w.stand.screen.Place; screen.Place {
	case Place{}:
		w.stand.places = nil
	case here:
	default:
		w.stand.places = append(slices.Clip(w.stand.places), here)
		if len(w.stand.places) > maxDepth {
			w.stand.places = slices.Delete(slices.Clone(w.stand.places), 1, 2)
		}
	}
	w.arrive(screen)
	return nil
}

// show goes to a place without remembering this one.
func (w *walker) show(place Place) error {
	screen, err := w.ask(place)
	if err == nil {
		w.arrive(screen)
	}
	return err
}

// ask gets a screen from the menu.
func (w *walker) ask(place Place) (Screen, error) {
	w.visit.Place = place
	screen, err := w.server.config.Show(w.ctx, w.visit)
	if err != nil {
		return Screen{}, fmt.Errorf("show %q: %w", place.Name, err)
	}
	return screen, nil
}

// arrive makes a screen the one shown, at its first page.
func (w *walker) arrive(screen Screen) {
	w.stand.screen, w.stand.pages, w.stand.wrong = screen, nil, 0
	w.turnTo(0, "")
}

// turnTo lays out the page that begins at from.
func (w *walker) turnTo(from int, hint string) {
	words := w.server.frame(w.stand.screen.Style)
	top := len(w.stand.places) == 0
	w.stand.page = newLayout(w.stand.screen, words, top, w.alone, w.link.Latin, w.link.Profile.Limits).page(from, hint)
}

// choice returns what a key leads to on this screen.
func (s *Screen) choice(key string) (Choice, bool) {
	for _, choices := range [][]Choice{s.Items, s.Bar} {
		for _, c := range choices {
			if c.Key == key {
				return c, true
			}
		}
	}
	return Choice{}, false
}
