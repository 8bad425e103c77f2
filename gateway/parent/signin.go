package parent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"zvonok/access"
	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/templates"
)

// Queue is the job queue of codes. It is one of its own, so that nobody waits at
// the sign-in for the school bell's news to be told.
const Queue = "codes"

const (
	queueWorkers = 4
	codeTopic    = "code"
	codeAttempts = 5 // of the job; the SMS itself is never tried again
	inviteTopic  = "invitation"

	// region is the country in which a number without its code is meant.
	region = "RU"
)

// CodeAsked is the job that draws and sends the code of a sign-in. It is made
// for known and unknown phones alike, and holds no code.
type CodeAsked struct {
	Request access.RequestID `json:"request"`
}

// Kind names the job.
func (CodeAsked) Kind() string { return "code_asked" }

// InsertOpts puts the job into its queue, first of all.
func (CodeAsked) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: Queue, Priority: 1, MaxAttempts: codeAttempts}
}

// RegisterWorkers adds the package's workers; their queue is that of [Queues].
func (a *API) RegisterWorkers(workers *river.Workers) {
	river.AddWorker(workers, &codeWorker{api: a})
}

// Queues are the queues of the package's workers.
func Queues() map[string]river.QueueConfig {
	return map[string]river.QueueConfig{Queue: {MaxWorkers: queueWorkers}}
}

type codeWorker struct {
	river.WorkerDefaults[CodeAsked]
	api *API
}

// Work draws the code and queues its SMS in one transaction: a code is drawn
// once, so the job may be repeated.
func (w *codeWorker) Work(ctx context.Context, job *river.Job[CodeAsked]) error {
	a := w.api
	outcome := "late"
	err := a.write(ctx, func(tx pgx.Tx) error {
		now := a.now()
		number, code, drawn, err := access.DrawCode(ctx, tx, job.Args.Request, now)
		if err != nil || !drawn {
			return err
		}
		expected, err := access.Expected(ctx, tx, number, now)
		if err != nil {
			return err
		}
		if !expected {
			outcome = "unknown"
			return nil
		}
		outcome = "sent"
		return a.send(ctx, tx, number, templates.LoginCode{Code: code, Minutes: codeMinutes}.SMS, now)
	})
	if err != nil {
		return fmt.Errorf("send a code: %w", err)
	}
	a.metrics.codes.WithLabelValues(outcome).Inc()
	return nil
}

const codeMinutes = int(access.CodeLife / time.Minute)

// send queues an SMS with a code, before everything else. One whose outcome is
// unknown is not sent again: the person asks for another code.
func (a *API) send(ctx context.Context, tx pgx.Tx, to phone.Number, text func(templates.Style) string, now time.Time) error {
	style := templates.Style{Language: templates.RU, Texts: a.texts()}
	owner, err := access.RepresentativeByPhone(ctx, tx, to)
	switch {
	case err == nil:
		style.Language, style.Latin = templates.Language(owner.Language), owner.Translit
	case !errors.Is(err, access.ErrNoRepresentative):
		return err
	}
	_, err = a.desk.Enqueue(ctx, tx, now, []delivery.Draft{{
		Representative: owner.ID, Topic: codeTopic, Channel: subscription.SMS, Address: string(to), Priority: carrier.Urgent,
		Again: delivery.Never, Expires: now.Add(access.CodeLife), Body: text(style),
	}})
	return err
}

// CodeWish asks for a code.
type CodeWish struct {
	Phone string `json:"phone" maxLength:"64" example:"+79000000001" doc:"The mobile number of the application."`
}

// CodeAnswer says that a code is on its way, if the phone is expected here.
type CodeAnswer struct {
	Request   string `json:"request" doc:"Names the request, for the code that comes by SMS."`
	ExpiresIn int    `json:"expires_in" example:"600" doc:"Seconds for which the code is good."`
}

// CodeTyped is a code that somebody has typed.
type CodeTyped struct {
	Request string `json:"request" maxLength:"64"`
	Code    string `json:"code" maxLength:"16" example:"123456"`
}

// SessionAnswer is the token of a new session.
type SessionAnswer struct {
	Token string `json:"token" doc:"For the header Authorization: Bearer TOKEN. It is also set as a cookie, for browsers."`
}

// opened is SessionAnswer with its cookie.
type opened struct {
	CacheControl string      `header:"Cache-Control"`
	SetCookie    http.Cookie `header:"Set-Cookie"`
	Body         SessionAnswer
}

// closed ends a session at the browser's.
type closed struct {
	CacheControl string      `header:"Cache-Control"`
	SetCookie    http.Cookie `header:"Set-Cookie"`
}

func (s routes) signIn() {
	show(s, route{
		method: http.MethodPost, path: "/code", id: "ask-code", status: http.StatusAccepted, open: true,
		summary: "Ask for a code by SMS",
		text: "The answer is the same whether or not anybody has the phone. A code is good once, for ten minutes and five " +
			"tries; a phone is sent three within ten minutes and ten a day.",
	}, s.askCode)

	huma.Register(s.api, s.operation(route{
		method: http.MethodPost, path: "/session", id: "open-session", open: true,
		summary: "Sign in with the code", errors: []int{http.StatusUnauthorized},
	}), func(ctx context.Context, in *struct{ Body CodeTyped }) (*opened, error) {
		ctx, cancel := context.WithTimeout(ctx, requestTime)
		defer cancel()
		v := visitorOf(ctx)
		leave, err := s.turn(ctx)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		defer leave()
		token, session, err := s.open(ctx, v, in.Body)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		return &opened{noStore, s.guard.cookie(v.request, token, session.ExpiresAt, v.now), SessionAnswer{token.Reveal()}}, nil
	})

	end := func(path, id, summary string, end func(context.Context, visitor) error) {
		op := s.operation(route{method: http.MethodDelete, path: path, id: id, summary: summary, status: http.StatusNoContent})
		huma.Register(s.api, op, func(ctx context.Context, _ *struct{}) (*closed, error) {
			v := visitorOf(ctx)
			leave, err := s.turn(ctx)
			if err != nil {
				return nil, s.problem(ctx, err)
			}
			defer leave()
			if err := end(ctx, v); err != nil {
				return nil, s.problem(ctx, err)
			}
			return &closed{noStore, s.guard.cookie(v.request, "", v.now, v.now)}, nil
		})
	}
	end("/session", "end-session", "Sign out", func(ctx context.Context, v visitor) error {
		return access.EndSession(ctx, s.pool, v.token)
	})
	end("/sessions", "end-sessions", "Sign out everywhere", func(ctx context.Context, v visitor) error {
		return access.EndSessions(ctx, s.pool, v.session.Phone)
	})
}

// askCode notes the request and the job that looks whether the phone is
// expected. Nothing before the answer does.
func (s routes) askCode(ctx context.Context, v visitor, in *struct{ Body CodeWish }) (CodeAnswer, error) {
	if !s.guard.codes.allow(s.guard.address(v.request)) {
		return CodeAnswer{}, errFlood
	}
	number, err := phone.Parse(in.Body.Phone, region)
	if err != nil {
		return CodeAnswer{}, err
	}
	var request access.RequestID
	err = s.write(ctx, func(tx pgx.Tx) error {
		if request, err = access.AskCode(ctx, tx, access.SignIn, number, v.now); err != nil {
			return err
		}
		if _, err := s.river.InsertTx(ctx, tx, CodeAsked{request}, nil); err != nil {
			return fmt.Errorf("insert the job of a code: %w", err)
		}
		return nil
	})
	return codeAnswer(request), err
}

func codeAnswer(request access.RequestID) CodeAnswer {
	return CodeAnswer{string(request), int(access.CodeLife / time.Second)}
}

// open opens a session. Every reason why not looks alike.
func (s routes) open(ctx context.Context, v visitor, typed CodeTyped) (
	token access.Token, session access.Session, err error,
) {
	address := s.guard.address(v.request)
	if !s.guard.tries.allow(address) {
		return "", session, errFlood
	}
	err = s.writeKept(ctx, func(tx pgx.Tx) error {
		var verdict access.CodeVerdict
		token, session, verdict, err = access.OpenSession(ctx, tx, access.RequestID(typed.Request), typed.Code, v.now)
		if err != nil {
			return err
		}
		s.metrics.signIns.WithLabelValues(string(verdict)).Inc()
		if verdict != access.CodeRight {
			s.log.InfoContext(ctx, "a sign-in was refused", "verdict", string(verdict))
			return errKept{errCode}
		}
		dead, err := delivery.Recycled(ctx, tx, session.Phone)
		if err != nil {
			return err
		}
		heard, err := access.Hear(ctx, tx, access.Heard{Phone: session.Phone, Silence: s.silence, Dead: dead, At: v.now})
		if err != nil {
			return err
		}
		if heard.Doubt != "" {
			session.Representative = access.Representative{} // as for everybody of whom nothing is known
		}
		if heard.Raised {
			return delivery.StopInDoubt(ctx, tx, session.Phone, v.now)
		}
		return nil
	})
	if err == nil {
		s.log.InfoContext(ctx, "signed in", "representative", int64(session.Representative.ID))
	}
	return token, session, err
}

// id reads an id out of a path. Whatever is no id names nothing.
func id[T ~int64](text string) (T, error) {
	var n int64
	if len(text) == 0 || len(text) > 18 {
		return 0, errNothing
	}
	for _, r := range text {
		if r < '0' || r > '9' {
			return 0, errNothing
		}
		n = n*10 + int64(r-'0')
	}
	if n == 0 {
		return 0, errNothing
	}
	return T(n), nil
}

// child asks whether the visitor may know of the child of a path.
func (s routes) child(ctx context.Context, v visitor, text string) (access.Child, error) {
	number, err := id[ledger.PersonID](text)
	if err != nil {
		return access.Child{}, err
	}
	return access.ChildOf(ctx, s.pool, v.session.Phone, number, v.now)
}

// own is child for what only a legal representative may do.
func (s routes) own(ctx context.Context, v visitor, text string) (access.Child, error) {
	child, err := s.child(ctx, v, text)
	if err == nil && child.Role != access.Legal {
		err = errLegal
	}
	return child, err
}

// fed is child for meals and money.
func (s routes) fed(ctx context.Context, v visitor, text string) (access.Child, error) {
	child, err := s.child(ctx, v, text)
	if err == nil && !child.Meals {
		err = errPurpose
	}
	return child, err
}
