package carrier

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"
	"sync"
	"time"

	"zvonok/access/phone"
)

// The moving share of timely deliveries by operator and prefix. Processes that share it in a database follow the same
// rule.
const (
	EvidenceStep  = 0.02      // weight of one message
	EvidenceFloor = 0.05      // of the share: an operator is never cut off, since without traffic it could not recover
	EvidenceHalf  = time.Hour // of the drift back to 1
)

// Limits of routing.
const (
	learnedLife = 30 * 24 * time.Hour // of a learned porting; numbers seldom move twice in a month
	maxLearned  = 100_000             // learned numbers in memory; the oldest make room
	maxEvidence = 10_000              // pairs of operator and prefix with evidence
)

// carrierRoute is what routing knows of one operator.
type carrierRoute struct {
	name     string
	prefixes []string
	weight   int
	cost     int64 // kopecks per part
}

// router chooses operators for numbers. In order of preference come
//
//  1. the operator to which the number is known to be ported,
//  2. the operators with the longest matching prefix, the first of them drawn by weight, the others after it by cost,
//  3. the operators with shorter matching prefixes, likewise, down to those that take every number,
//  4. operators that are known not to have the number any more.
//
// The draw is a weighted rendezvous hash of number and operator: the same number always draws the same operator while
// the weights stand, so its messages keep their order, and a changed weight moves only as many numbers as it must. A
// weight of 0 makes a spare that is drawn only when no other operator has the prefix.
//
// The weights are multiplied by the evidence: the square of the share of messages that reached the phone within a
// minute, by operator and prefix, a moving share that drifts back to 1 with a half-life of [EvidenceHalf], so that an
// operator that was bad gets a new chance.
type router struct {
	operators []carrierRoute // in the order of the settings

	mu       sync.Mutex
	ported   *PortedNumbers // imported
	learned  map[phone.Number]learnedPort
	evidence map[evidenceKey]evidence
}

type learnedPort struct {
	at  string // the operator that accepted it; empty when only not is known
	not string // the operator that refused it as not its own
	// until is when the knowledge ends.
	until time.Time
}

type evidenceKey struct{ operator, prefix string }

type evidence struct {
	share float64
	at    time.Time
}

func newRouter(operators []carrierRoute) *router {
	return &router{
		operators: operators,
		learned:   make(map[phone.Number]learnedPort),
		evidence:  make(map[evidenceKey]evidence),
	}
}

// match returns the longest of the operator's prefixes that the number begins with, and whether there is one. An
// operator without prefixes takes every number with the empty prefix.
func (r carrierRoute) match(to phone.Number) (string, bool) {
	if len(r.prefixes) == 0 {
		return "", true
	}
	best, ok := "", false
	for _, p := range r.prefixes {
		if len(p) <= len(to) && string(to[:len(p)]) == p && (!ok || len(p) > len(best)) {
			best, ok = p, true
		}
	}
	return best, ok
}

// prefix returns the longest configured prefix of the number, "" when none matches.
func (r *router) prefix(to phone.Number) string {
	best := ""
	for _, o := range r.operators {
		if p, ok := o.match(to); ok && len(p) > len(best) {
			best = p
		}
	}
	return best
}

// route returns the operators for a number in order of preference.
func (r *router) route(to phone.Number, now time.Time) []string {
	type candidate struct {
		carrierRoute
		prefix string
		weight float64 // with evidence
		draw   float64 // the hash's score; the greatest wins
		rank   int     // 0 ported here, 1 usual, 2 ported away
	}
	r.mu.Lock()
	home, away := r.porting(to, now)
	candidates := make([]candidate, 0, len(r.operators))
	for _, o := range r.operators {
		p, ok := o.match(to)
		if !ok && o.name != home {
			continue
		}
		c := candidate{carrierRoute: o, prefix: p, rank: 1}
		switch o.name {
		case home:
			c.rank = 0
		case away:
			c.rank = 2
		}
		share := r.share(evidenceKey{o.name, p}, now)
		c.weight = float64(o.weight) * share * share
		c.draw = draw(to, o.name, c.weight)
		candidates = append(candidates, c)
	}
	r.mu.Unlock()

	slices.SortStableFunc(candidates, func(a, b candidate) int {
		return cmp.Or(
			cmp.Compare(a.rank, b.rank),
			cmp.Compare(len(b.prefix), len(a.prefix)),
			cmp.Compare(b.draw, a.draw),
			cmp.Compare(a.cost, b.cost),
		)
	})
	// Inside a group the drawn one stays first, and the rest is tried by cost.
	for from := 0; from < len(candidates); {
		to := from + 1
		for to < len(candidates) && candidates[to].rank == candidates[from].rank &&
			len(candidates[to].prefix) == len(candidates[from].prefix) {
			to++
		}
		slices.SortStableFunc(candidates[from+1:to], func(a, b candidate) int {
			return cmp.Or(cmp.Compare(spare(a.carrierRoute), spare(b.carrierRoute)), cmp.Compare(a.cost, b.cost))
		})
		from = to
	}
	names := make([]string, len(candidates))
	for i, c := range candidates {
		names[i] = c.name
	}
	return names
}

func spare(r carrierRoute) int {
	if r.weight <= 0 {
		return 1
	}
	return 0
}

// draw is the score of weighted rendezvous hashing: -weight/ln(u) with u in (0,1) from the hash. Among any set of
// operators the greatest score falls on each in proportion to its weight. A spare's score is below all.
func draw(to phone.Number, operator string, weight float64) float64 {
	if weight <= 0 {
		return math.Inf(-1)
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(operator))
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(to))
	u := (float64(mix(h.Sum64())>>11) + 0.5) / (1 << 53)
	return -weight / math.Log(u)
}

// mix spreads the last octets of FNV, which otherwise hardly reach the upper bits, over the whole word (the finaliser
// of MurmurHash3).
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// porting returns the operator that has the number and the one that is known not to have it; either may be "".
func (r *router) porting(to phone.Number, now time.Time) (home, away string) {
	if l, ok := r.learned[to]; ok {
		if now.Before(l.until) {
			return l.at, l.not
		}
		delete(r.learned, to)
	}
	return r.ported.Operator(to), ""
}

// foreign reports whether the number belongs to another operator than this, by porting or by prefix.
func (r *router) foreign(to phone.Number, operator string, now time.Time) bool {
	r.mu.Lock()
	home, away := r.porting(to, now)
	r.mu.Unlock()
	switch {
	case home != "":
		return home != operator
	case away == operator:
		return true
	}
	// By prefix the number is foreign when another operator has a longer one.
	own, best := -1, -1
	for _, o := range r.operators {
		p, ok := o.match(to)
		if !ok {
			continue
		}
		best = max(best, len(p))
		if o.name == operator {
			own = len(p)
		}
	}
	return best > own
}

// refused takes note that an operator does not have the number, and returns what is known now.
func (r *router) refused(to phone.Number, operator string, now time.Time) Ported {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := learnedPort{not: operator, until: now.Add(learnedLife)}
	r.learn(to, l)
	return Ported{Phone: to, Not: operator, Until: l.until}
}

// accepted takes note that an operator accepted a message, which tells where a number is that another one refused. It
// reports whether that was news.
func (r *router) accepted(to phone.Number, operator string, now time.Time) (Ported, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, ok := r.learned[to]
	if !ok || l.at == operator || now.After(l.until) {
		return Ported{}, false
	}
	if l.not == operator {
		// It took what it had refused: the refusal was not about porting.
		delete(r.learned, to)
		return Ported{Phone: to}, true
	}
	l.at, l.until = operator, now.Add(learnedLife)
	r.learn(to, l)
	return Ported{Phone: to, Operator: operator, Not: l.not, Until: l.until}, true
}

func (r *router) learn(to phone.Number, l learnedPort) {
	if len(r.learned) >= maxLearned {
		oldest, at := phone.Number(""), time.Time{}
		// A sample is enough to find an old one; map order is random.
		n := 0
		for p, other := range r.learned {
			if oldest == "" || other.until.Before(at) {
				oldest, at = p, other.until
			}
			if n++; n == 16 {
				break
			}
		}
		delete(r.learned, oldest)
	}
	r.learned[to] = l
}

// delivered takes note whether a message reached the phone within a minute.
func (r *router) delivered(operator, prefix string, within bool, now time.Time) {
	key := evidenceKey{operator, prefix}
	r.mu.Lock()
	defer r.mu.Unlock()
	share := r.share(key, now)
	seen := 0.0
	if within {
		seen = 1
	}
	if _, ok := r.evidence[key]; !ok && len(r.evidence) >= maxEvidence {
		return
	}
	r.evidence[key] = evidence{share: max(EvidenceFloor, share+EvidenceStep*(seen-share)), at: now}
}

// share returns the moving share of timely deliveries, drifted back towards 1 since it was last changed.
func (r *router) share(key evidenceKey, now time.Time) float64 {
	e, ok := r.evidence[key]
	if !ok {
		return 1
	}
	age := max(0, now.Sub(e.at))
	return 1 - (1-e.share)*math.Exp2(-float64(age)/float64(EvidenceHalf))
}

// setPorted replaces the imported numbers.
func (r *router) setPorted(numbers *PortedNumbers) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ported = numbers
}

// setLearned adds what was learned before or elsewhere.
func (r *router) setLearned(numbers []Ported, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range numbers {
		if now.Before(n.Until) {
			r.learn(n.Phone, learnedPort{at: n.Operator, not: n.Not, until: n.Until})
		} else {
			delete(r.learned, n.Phone)
		}
	}
}

// setEvidence replaces the evidence by what all processes have seen together.
func (r *router) setEvidence(all []Evidence) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.evidence)
	for _, e := range all {
		if len(r.evidence) < maxEvidence {
			r.evidence[evidenceKey{e.Operator, e.Prefix}] = evidence{share: min(max(e.Share, EvidenceFloor), 1), at: e.At}
		}
	}
}
