package menu

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/gateway/delivery"
	"zvonok/ussd"
)

// When an operator's SIM cards are not believed. People change theirs once in years; where many do within an hour, the
// gateway reports something else than the IMSI, such as the number of the node that serves the phone.
const (
	simsWindow   = time.Hour
	simsChanged  = 10 // phones with another SIM card within the window, at least
	simsShare    = 20 // and more than one in so many of those that could be compared
	simsDistrust = time.Hour
)

// simWatch counts, link by link, how many phones come with another SIM card than is known.
type simWatch struct {
	mu    sync.Mutex
	links map[string]*simCount
}

type simCount struct {
	since      time.Time
	compared   int
	raised     []access.RepresentativeID
	distrusted time.Time // until then
}

func (w *simWatch) of(link string, at time.Time) *simCount {
	if w.links == nil {
		w.links = map[string]*simCount{}
	}
	c := w.links[link]
	if c == nil {
		c = &simCount{since: at}
		w.links[link] = c
	}
	if at.Sub(c.since) >= simsWindow {
		c.since, c.compared, c.raised = at, 0, nil
	}
	return c
}

// believes says whether what a link reports of SIM cards is heeded.
func (w *simWatch) believes(link string, at time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !at.Before(w.of(link, at).distrusted)
}

// note counts a report. When the link is not to be believed any more it returns whose doubts are to be taken back.
func (w *simWatch) note(link string, heard access.Hearing, at time.Time) []access.RepresentativeID {
	if !heard.Compared {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.of(link, at)
	c.compared++
	if heard.Raised && heard.Doubt == access.NewSIM {
		c.raised = append(c.raised, heard.Representative)
	}
	if len(c.raised) < simsChanged || len(c.raised)*simsShare <= c.compared {
		return nil
	}
	back := c.raised
	c.compared, c.raised, c.distrusted = 0, nil, at.Add(simsDistrust)
	return back
}

// hear puts into a batch, before the question of rights, that a phone dialled and whether it may be in other hands. What
// it finds shows by access.ChildrenOf, there and wherever else the phone is asked about; [visitor.heed] does the rest.
// A key pressed later is no news, and gives nil.
func (v *visitor) hear(batch *pgx.Batch) *access.Hearing {
	if v.Place != (ussd.Place{}) {
		return nil
	}
	heard := access.Heard{Phone: v.Phone, Silence: v.config.Silence, At: v.At}
	switch {
	case v.SIM == "":
	case v.sims.believes(v.Link, v.At):
		heard.SIM = []byte(v.SIM)
	default:
		v.config.Metrics.sims.WithLabelValues("ignored").Inc()
	}
	return access.AskHearing(batch, heard)
}

// heed does what follows from what was heard.
func (v *visitor) heed(ctx context.Context, hearing *access.Hearing) error {
	if hearing == nil {
		return nil
	}
	if hearing.Compared {
		what := "known"
		if hearing.Doubt == access.NewSIM {
			what = "another"
		}
		v.config.Metrics.sims.WithLabelValues(what).Inc()
	}
	if hearing.Raised {
		v.config.Log.Warn("ussd: a phone may be in other hands; it is told nothing until its owner is confirmed",
			"representative", hearing.Representative, "why", hearing.Doubt)
		if err := delivery.StopInDoubt(ctx, v.config.Pool, v.Phone, v.At); err != nil {
			return err
		}
	}
	if back := v.sims.note(v.Link, *hearing, v.At); back != nil {
		v.config.Log.Error("ussd: an operator reports other SIM cards than are known for too many phones; "+
			"what it reports is ignored for an hour, and what followed from it is taken back", "link", v.Link, "phones", len(back))
		if err := access.TakeDoubtsBack(ctx, v.config.Pool, back); err != nil {
			return err
		}
		return v.identify(ctx, v.config.Pool, &pgx.Batch{}) // this phone's doubt may be among them
	}
	return nil
}
