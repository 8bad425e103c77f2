package office

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/access/reader"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// Limits.
const (
	answerTime = 20 * time.Second // for a request: a year of attendance takes some seconds
	maxList    = 500              // rows of lists that a person looks through
	staffKey   = "staffKey"       // the name of the security scheme
)

// Config is what an Office works with. All fields are required.
type Config struct {
	Pool     *pgxpool.Pool
	Recorder *door.Recorder
	Intake   *reader.Intake // knows the tablets
	Log      *slog.Logger
	Now      func() time.Time
}

// Office answers staff. It is safe for use by any number of goroutines.
type Office struct{ Config }

// New returns an Office.
func New(config Config) *Office { return &Office{config} }

// Register puts the staff's interface on an API and describes it there.
func (o *Office) Register(api huma.API) {
	description := api.OpenAPI()
	if description.Components.SecuritySchemes == nil {
		description.Components.SecuritySchemes = map[string]*huma.SecurityScheme{}
	}
	description.Components.SecuritySchemes[staffKey] = &huma.SecurityScheme{
		Type: "http", Scheme: "bearer",
		Description: "The key of a staff tablet; the header Staff says who is at it, by the registry's id.",
	}
	r := registrar{o, api}
	r.cards()
	r.attendance()
	r.watch()
}

// visit is one request of somebody at a tablet.
type visit struct {
	device reader.Device
	staff  ledger.Person
	now    time.Time
}

func (v visit) organisation() ledger.OrganisationID { return v.device.Organisation }

// by is who does it.
func (v visit) by() access.Actor { return access.ByStaff(v.staff.Code) }

type visitKey struct{}

func visitOf(ctx context.Context) visit { return ctx.Value(visitKey{}).(visit) }

// registrar adds routes to the API.
type registrar struct {
	office *Office
	api    huma.API
}

// route adds one: an operation without a status answers 200, or 204 without a body.
func route[I, O any](r registrar, op huma.Operation, handle func(context.Context, visit, *I) (*O, error)) {
	op.Tags = []string{"staff"}
	op.Security = []map[string][]string{{staffKey: {}}}
	op.Middlewares = huma.Middlewares{r.identify}
	op.Parameters = append(op.Parameters, &huma.Param{
		Name: "Staff", In: "header", Required: true, Schema: &huma.Schema{Type: huma.TypeString},
		Description: "Who is at the tablet: the registry's id of a member of staff.", Example: "staff-3",
	})
	op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusForbidden)
	huma.Register(r.api, op, func(ctx context.Context, input *I) (*O, error) {
		ctx, cancel := context.WithTimeout(ctx, answerTime)
		defer cancel()
		output, err := handle(ctx, visitOf(ctx), input)
		if err != nil {
			return nil, r.office.problem(ctx, err)
		}
		return output, nil
	})
}

// identify finds the tablet and who is at it, or refuses.
func (r registrar) identify(ctx huma.Context, next func(huma.Context)) {
	request, _ := humago.Unwrap(ctx)
	v, err := r.office.identify(ctx.Context(), request)
	if err != nil {
		var status huma.StatusError
		err = r.office.problem(ctx.Context(), err)
		if !errors.As(err, &status) {
			status = huma.Error500InternalServerError("Something is wrong with the server; repeat later.")
		}
		if status.GetStatus() == http.StatusUnauthorized {
			ctx.SetHeader("WWW-Authenticate", "Bearer")
		}
		if status.GetStatus() == http.StatusServiceUnavailable {
			ctx.SetHeader("Retry-After", "2")
		}
		// A client that has gone needs no answer.
		_ = huma.WriteErr(r.api, ctx, status.GetStatus(), status.Error())
		return
	}
	ctx.SetHeader("Cache-Control", "no-store")
	next(huma.WithValue(ctx, visitKey{}, v))
}

func (o *Office) identify(ctx context.Context, r *http.Request) (visit, error) {
	device, err := o.Intake.Identify(ctx, o.Pool, r)
	switch {
	case errors.Is(err, reader.ErrKey):
		return visit{}, huma.Error401Unauthorized("The key is unknown or revoked.")
	case err != nil:
		return visit{}, err
	case device.Kind != reader.StaffTablet:
		return visit{}, huma.Error403Forbidden("This is the key of a " + string(device.Kind) + "; staff use that of a staff tablet.")
	}
	v := visit{device: device, now: o.Now()}
	person, err := personByCode(ctx, o.Pool, device.Organisation, r.Header.Get("Staff"))
	var none huma.StatusError
	if errors.As(err, &none) || err == nil && (person.Kind != ledger.Staff || hasLeft(person, v.now)) {
		return visit{}, huma.Error403Forbidden("The header Staff does not name a member of staff of this organisation.")
	}
	v.staff = person
	return v, err
}

func hasLeft(p ledger.Person, now time.Time) bool { return !p.LeftOn.IsZero() && !now.Before(p.LeftOn) }

// personByCode finds somebody of an organisation by the registry's id; anybody
// else is a 404.
func personByCode(ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, code string) (ledger.Person, error) {
	ids, err := ledger.PeopleByCode(ctx, q, []string{code})
	if err != nil {
		return ledger.Person{}, err
	}
	people, err := ledger.People(ctx, q, []ledger.PersonID{ids[code]})
	if err != nil {
		return ledger.Person{}, err
	}
	person, ok := people[ids[code]]
	if !ok || person.Organisation != organisation {
		return ledger.Person{}, huma.Error404NotFound("Nobody in this organisation has this id.")
	}
	return person, nil
}

// problem turns an error into a problem document. What the caller can do nothing
// about is for the log.
func (o *Office) problem(ctx context.Context, err error) error {
	var (
		status    huma.StatusError
		collision *access.CollisionError
		state     *access.StateError
	)
	switch {
	case errors.As(err, &status):
		return status
	case errors.As(err, &collision):
		return huma.Error409Conflict(sentence(collision))
	case errors.As(err, &state):
		return huma.Error409Conflict(sentence(state))
	case errors.Is(err, access.ErrNoCard):
		return huma.Error404NotFound("There is no such card in this organisation.")
	case errors.Is(err, access.ErrHolder):
		return huma.Error422UnprocessableEntity("The holder does not belong to the organisation, or has left it.")
	case errors.Is(err, door.ErrExcuse):
		return huma.Error422UnprocessableEntity("An excuse has a reason of at most 200 characters and at most a year of days, in their order.")
	case errors.Is(err, door.ErrNoExcuse):
		return huma.Error404NotFound("There is no such excuse in this organisation.")
	case errors.Is(err, door.ErrNoAlarm):
		return huma.Error404NotFound("There is no such open alarm in this organisation.")
	case errors.Is(err, reader.ErrNoDeviceAlarm):
		return huma.Error404NotFound("There is no such open alarm of a device in this organisation.")
	case errors.Is(err, door.ErrNotHeld):
		return huma.Error404NotFound("There is no such batch that waits for a decision in this organisation.")
	case errors.Is(err, reader.ErrNotQuarantined):
		return huma.Error404NotFound("There is no such event in quarantine in this organisation.")
	case pg.Temporary(err), errors.Is(err, context.DeadlineExceeded):
		o.Log.WarnContext(ctx, "staff cannot be served", "error", err)
		return huma.Error503ServiceUnavailable("Nothing was done; repeat later.")
	default:
		if ctx.Err() == nil {
			o.Log.ErrorContext(ctx, "staff cannot be served", "error", err)
		}
		return huma.Error500InternalServerError("Something is wrong with the server; repeat later.")
	}
}

// sentence makes an error's text fit to be read.
func sentence(err error) string {
	text := []rune(err.Error())
	return string(slices.Concat([]rune{text[0] - 'a' + 'A'}, text[1:])) + "."
}

// change runs a change in a transaction.
func (o *Office) change(ctx context.Context, work func(pgx.Tx) error) error {
	if err := pgx.BeginFunc(ctx, o.Pool, work); err != nil {
		return fmt.Errorf("at the school office: %w", err)
	}
	return nil
}

// look writes into the access log that staff look at children's data; members of
// staff among the people are none.
func (v visit) look(ctx context.Context, q pg.Querier, what string, channel access.Channel, people ...ledger.Person) error {
	ids := make([]ledger.PersonID, 0, len(people))
	for _, p := range people {
		if p.Kind == ledger.Pupil {
			ids = append(ids, p.ID)
		}
	}
	return v.lookAt(ctx, q, what, channel, ids)
}

func (v visit) lookAt(ctx context.Context, q pg.Querier, what string, channel access.Channel, children []ledger.PersonID) error {
	views := make([]access.View, len(children))
	for i, child := range children {
		views[i] = access.View{Who: v.by(), Child: child, What: what, Channel: channel, At: v.now}
	}
	return access.LogView(ctx, q, views)
}
