package parent

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"zvonok/access"
	"zvonok/access/phone"
	"zvonok/access/reader"
	"zvonok/gateway/push"
	"zvonok/gateway/subscription"
	"zvonok/ledger/meal"
	"zvonok/ledger/pg"
)

// What is refused here; the rest is refused by the packages that own it.
var (
	// errNothing is what does not exist, or is not the asker's: outside there is
	// no difference.
	errNothing = errors.New("nothing of that kind")
	errOrigin  = errors.New("another origin")
	errLegal   = errors.New("only a legal representative may")
	errPurpose = errors.New("the consent does not cover it")
	errCode    = errors.New("the code is not right")
	errAccount = errors.New("the account number is not right")
	errTablet  = errors.New("not the key of a staff tablet")
	errStaff   = errors.New("not a member of the organisation's staff")
	errBusy    = errors.New("too many requests are under way")
	errFlood   = errors.New("too many requests of one address")
)

// fieldError is a field of a body that cannot be taken as it is.
type fieldError struct{ location, message string }

func (e *fieldError) Error() string { return e.location + ": " + e.message }

func wrong(field, message string) error { return &fieldError{"body." + field, message} }

// problem decides how a failure is told. Only what the asker can do something
// about is said; the rest is for the log, by ids.
func (a *API) problem(ctx context.Context, err error) error {
	var (
		field *fieldError
		form  *access.FormError
		bad   *phone.Error
	)
	switch {
	case errors.As(err, &field):
		return refusal(http.StatusUnprocessableEntity, "The request cannot be taken as it is.",
			&huma.ErrorDetail{Location: field.location, Message: field.message})
	case errors.As(err, &form):
		details := make([]error, len(form.Problems))
		for i, p := range form.Problems {
			location := "body"
			if p.Path != "" {
				location += "." + p.Path
			}
			details[i] = &huma.ErrorDetail{Location: location, Message: p.Reason}
		}
		return refusal(http.StatusUnprocessableEntity, "The application cannot be taken as it is.", details...)
	case errors.As(err, &bad):
		return refusal(http.StatusUnprocessableEntity, "The request cannot be taken as it is.",
			&huma.ErrorDetail{Location: "body.phone", Message: bad.Error()})
	case errors.Is(err, access.ErrNoSession), errors.Is(err, reader.ErrKey):
		return withHeader(refusal(http.StatusUnauthorized, "Sign in first."), "WWW-Authenticate", "Bearer")
	case errors.Is(err, errCode):
		return refusal(http.StatusUnauthorized, "The code is wrong or is no longer good. Ask for another one.")
	case errors.Is(err, errAccount):
		return refusal(http.StatusUnauthorized, "This number cannot be confirmed so. Check the account number, or ask the school.")
	case errors.Is(err, errOrigin):
		return refusal(http.StatusForbidden, "Changes are made from our own pages.")
	case errors.Is(err, errTablet):
		return refusal(http.StatusForbidden, "Applications are keyed in with the key of a staff tablet.")
	case errors.Is(err, errStaff):
		return refusal(http.StatusForbidden, "The header Staff does not name a member of staff of this organisation.")
	case errors.Is(err, errLegal):
		return refusal(http.StatusForbidden, "Only a legal representative of the child may do this.")
	case errors.Is(err, errPurpose):
		return refusal(http.StatusForbidden, "The consent that was given does not cover this.")
	case errors.Is(err, errNothing), errors.Is(err, access.ErrNoChild), errors.Is(err, access.ErrNotAllowed),
		errors.Is(err, access.ErrNoRight), errors.Is(err, access.ErrNoRepresentative), errors.Is(err, access.ErrNoPetition):
		return refusal(http.StatusNotFound, "There is nothing here.")
	case errors.Is(err, access.ErrTooManyCodes):
		return later(refusal(http.StatusTooManyRequests, "Enough codes were asked for this phone. Try again later."),
			int(access.CodeLife.Seconds()))
	case errors.Is(err, access.ErrTooManyInvitations):
		return later(refusal(http.StatusTooManyRequests, "Ten invitations in a day are enough."), 3600)
	case errors.Is(err, access.ErrTooManyPetitions):
		return later(refusal(http.StatusTooManyRequests, "Ten applications in a day are enough."), 3600)
	case errors.Is(err, access.ErrPetitionReason):
		return a.problem(ctx, wrong("reason", "is needed, at most 200 characters on one line"))
	case errors.Is(err, errFlood):
		return later(refusal(http.StatusTooManyRequests, "Too many requests. Try again later."), 60)
	case errors.Is(err, access.ErrInviteSelf):
		return a.problem(ctx, wrong("phone", "is your own"))
	case errors.Is(err, access.ErrNoName):
		return a.problem(ctx, wrong("family_name", "is needed: a surname of one line"))
	case errors.Is(err, access.ErrSamePhone):
		return a.problem(ctx, wrong("phone", "is the one you have"))
	case errors.Is(err, access.ErrMailbox):
		return a.problem(ctx, wrong("address", "is not a mailbox like name@example.org"))
	case errors.Is(err, subscription.ErrMergeWait):
		return a.problem(ctx, wrong("merge_wait_seconds", "must be 0 to 90"))
	case errors.Is(err, subscription.ErrFallback):
		return a.problem(ctx, wrong("fallback", "has each channel once, with a patience of 1 to 60 minutes"))
	case errors.Is(err, subscription.ErrSubscription):
		return a.problem(ctx, wrong("subscriptions", "names a topic, channel or mode that does not exist"))
	case errors.Is(err, push.ErrSubscription):
		return a.problem(ctx, &fieldError{"body", err.Error()})
	case errors.Is(err, meal.ErrRule):
		return a.problem(ctx, &fieldError{"body", err.Error()})
	case errors.Is(err, access.ErrPhoneTaken):
		return refusal(http.StatusConflict, "The phone belongs to another representative. Ask the school.")
	case errors.Is(err, access.ErrReference):
		return refusal(http.StatusConflict, "Another application of the organisation has this number.",
			&huma.ErrorDetail{Location: "body.reference", Message: "is the number of another application"})
	case errors.Is(err, errBusy), pg.Temporary(err), errors.Is(err, pg.ErrClosed), errors.Is(err, context.DeadlineExceeded):
		a.log.WarnContext(ctx, "a parent's request could not be served", "error", err)
		return later(refusal(http.StatusServiceUnavailable, "The service is busy. Try again in a moment."), retryAfter)
	case errors.Is(err, context.Canceled):
		return refusal(http.StatusServiceUnavailable, "The request was given up.")
	default:
		a.log.ErrorContext(ctx, "a parent's request failed", "error", err)
		return refusal(http.StatusInternalServerError, "Something is wrong with the service. Try again later.")
	}
}

// refusal is an RFC 9457 document.
func refusal(status int, detail string, errs ...error) error {
	return withHeader(huma.NewError(status, detail, errs...), "Cache-Control", noStore)
}

func later(err error, seconds int) error {
	return withHeader(err, "Retry-After", strconv.Itoa(seconds))
}

func withHeader(err error, name, value string) error {
	return huma.ErrorWithHeaders(err, http.Header{name: {value}})
}
