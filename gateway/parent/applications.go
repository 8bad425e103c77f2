package parent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/reader"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
)

// applicationPath is where schools key applications in.
const applicationPath = "/api/v1/applications"

// TakenView is an application that has been taken.
type TakenView struct {
	ID       int64 `json:"id"`
	Repeated bool  `json:"repeated" doc:"It had been keyed in before; nothing was changed."`
	Children int   `json:"children" doc:"To how many children it gives access."`
	People   int   `json:"people" doc:"To how many people."`
}

// Taken counts what an application gives.
func Taken(t access.Taken) TakenView {
	children, people := map[ledger.PersonID]bool{}, map[access.RepresentativeID]bool{}
	for _, g := range t.Granted {
		children[g.Child], people[g.Representative] = true, true
	}
	return TakenView{int64(t.ID), t.Repeated, len(children), len(people)}
}

// applications puts the school's route on the API. Its body is read by the
// package that owns applications, so that what is wrong is named alike here and
// by the command.
func (s routes) applications() {
	registry := s.api.OpenAPI().Components.Schemas
	schema := func(t reflect.Type) *huma.Schema { return registry.Schema(t, true, "") }
	body := func(content string, s *huma.Schema, text string) *huma.Response {
		return &huma.Response{Description: text, Content: map[string]*huma.MediaType{content: {Schema: s}}}
	}
	op := &huma.Operation{
		OperationID: "add-application", Method: http.MethodPost, Path: applicationPath,
		Summary: "Key in an application for informing",
		Description: "One record for several children and recipients, with its consents. The number on the form names it inside " +
			"the organisation: the same application sent again changes nothing. The key is that of a staff tablet in a " +
			"building of the organisation. From now on the phones of the application open the cabinet.",
		Tags:     []string{"staff"},
		Security: []map[string][]string{{staffScheme: {}}},
		Parameters: []*huma.Param{{
			Name: "Staff", In: "header", Required: true, Schema: &huma.Schema{Type: huma.TypeString},
			Description: "Who is at the tablet: the registry's id of a member of staff.", Example: "staff-3",
		}},
		RequestBody: &huma.RequestBody{
			Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: schema(reflect.TypeFor[access.Application]())}},
		},
		Responses: map[string]*huma.Response{
			"200": body("application/json", schema(reflect.TypeFor[TakenView]()), "It had been taken before."),
			"201": body("application/json", schema(reflect.TypeFor[TakenView]()), "It is taken."),
		},
		Middlewares: huma.Middlewares{s.measured, s.fromHere},
	}
	problem := schema(reflect.TypeFor[huma.ErrorModel]())
	for status, text := range map[int]string{
		http.StatusUnauthorized:          "The key is unknown or revoked.",
		http.StatusForbidden:             "It is not the key of a staff tablet, or Staff is nobody of the organisation's staff.",
		http.StatusConflict:              "Another application of the organisation has this number.",
		http.StatusRequestEntityTooLarge: "The body is over 64 KiB.",
		http.StatusUnprocessableEntity:   "What is wrong stands in errors, each with the path of its field.",
		http.StatusServiceUnavailable:    "Nothing was stored: repeat.",
	} {
		op.Responses[strconv.Itoa(status)] = body("application/problem+json", problem, text)
	}
	s.api.OpenAPI().AddOperation(op)
	s.api.Adapter().Handle(op, op.Middlewares.Handler(s.serveApplication))
}

func (s routes) serveApplication(hctx huma.Context) {
	v := visitorOf(hctx.Context())
	ctx, cancel := context.WithTimeout(hctx.Context(), requestTime)
	defer cancel()
	taken, err := s.takeApplication(ctx, hctx, v)
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		hctx.SetHeader("Cache-Control", noStore)
		_ = huma.WriteErr(s.api, hctx, http.StatusRequestEntityTooLarge, "An application has at most 64 KiB.") // the asker may have gone
		return
	}
	if err != nil {
		s.refuse(hctx, err)
		return
	}
	hctx.SetHeader("Content-Type", "application/json")
	hctx.SetHeader("Cache-Control", noStore)
	status := http.StatusCreated
	if taken.Repeated {
		status = http.StatusOK
	}
	hctx.SetStatus(status)
	answer, err := json.Marshal(Taken(taken))
	if err != nil { // it holds only numbers
		panic(err)
	}
	_, _ = hctx.BodyWriter().Write(answer) // the asker may have gone
}

func (s routes) takeApplication(ctx context.Context, hctx huma.Context, v visitor) (access.Taken, error) {
	var taken access.Taken
	leave, err := s.turn(ctx)
	if err != nil {
		return taken, err
	}
	tablet, err := s.intake.Identify(ctx, s.pool, v.request)
	leave()
	if err != nil {
		return taken, err
	}
	if tablet.Kind != reader.StaffTablet {
		return taken, errTablet
	}
	if err := hctx.SetReadDeadline(time.Now().Add(bodyTime)); err != nil {
		return taken, err
	}
	var text bytes.Buffer
	if _, err := text.ReadFrom(http.MaxBytesReader(nil, v.request.Body, maxBody)); err != nil {
		return taken, err
	}
	form, err := access.ParseApplication(&text)
	if err != nil {
		return taken, err
	}
	if leave, err = s.turn(ctx); err != nil {
		return taken, err
	}
	defer leave()
	by := v.request.Header.Get("Staff")
	if err := s.checkStaff(ctx, tablet.Organisation, by, v.now); err != nil {
		return taken, err
	}
	// A key speaks for its own organisation; another one is as unknown as one
	// that does not exist.
	organisations, err := ledger.OrganisationsByCode(ctx, s.pool, []string{form.Organisation})
	if err != nil {
		return taken, err
	}
	if organisations[form.Organisation] != tablet.Organisation {
		return taken, &access.FormError{Problems: []access.FormProblem{{Path: "organisation", Reason: "is not known"}}}
	}
	err = s.write(ctx, func(tx pgx.Tx) error {
		taken, err = subscription.Enrol(ctx, tx, form, access.ByStaff(by), v.now)
		return err
	})
	return taken, err
}

// checkStaff answers whether the code is that of a member of the organisation's staff.
func (s routes) checkStaff(ctx context.Context, organisation ledger.OrganisationID, code string, now time.Time) error {
	ids, err := ledger.PeopleByCode(ctx, s.pool, []string{code})
	if err != nil {
		return err
	}
	people, err := ledger.People(ctx, s.pool, []ledger.PersonID{ids[code]})
	if err != nil {
		return err
	}
	p, known := people[ids[code]]
	if !known || p.Organisation != organisation || p.Kind != ledger.Staff || !p.LeftOn.IsZero() && !p.LeftOn.After(now) {
		return errStaff
	}
	return nil
}
