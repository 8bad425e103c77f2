package reader

import (
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// keyScheme is the name of the devices' keys in the OpenAPI document.
const keyScheme = "deviceKey"

// Register puts the device interface on an API and describes it there. The
// handlers are plain ones: they must refuse before they read, and they are the
// busiest of the program.
func (in *Intake) Register(api huma.API) {
	description := api.OpenAPI()
	if description.Components.SecuritySchemes == nil {
		description.Components.SecuritySchemes = map[string]*huma.SecurityScheme{}
	}
	description.Components.SecuritySchemes[keyScheme] = &huma.SecurityScheme{
		Type: "http", Scheme: "bearer", Description: "The key that `zvonok key add` printed once.",
	}
	d := describer{api}
	d.route(in.serveEvents, huma.Operation{
		OperationID: "upload-events", Method: http.MethodPost, Path: "/api/v1/events",
		Summary:     "Report what happened",
		Description: eventsText(),
		RequestBody: d.body(reflect.TypeFor[EventUpload](), "At most 1,000 events and 1 MiB, not compressed."),
	}, reflect.TypeFor[Acknowledgement](), "All events are stored for good: acknowledged, or rejected and kept for staff.")
	d.route(in.serveAuthorize, huma.Operation{
		OperationID: "authorize", Method: http.MethodPost, Path: "/api/v1/authorize",
		Summary:     "May this card pass, or buy?",
		Description: authorizeText(),
		RequestBody: d.body(reflect.TypeFor[Question](), "A card at a door or at a till."),
	}, reflect.TypeFor[Decision](), "The decision. It changes nothing: what then happens is reported as an event.")
	d.route(in.serveLists, huma.Operation{
		OperationID: "lists", Method: http.MethodGet, Path: "/api/v1/lists",
		Summary:     "What has changed, for decisions offline",
		Description: listsText,
		Parameters: []*huma.Param{{
			Name: "since", In: "query", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "The cursor of the last answer; empty for everything.",
		}},
	}, reflect.TypeFor[Changes](), "The changes since the cursor, the oldest first.")
	d.explain()
}

func eventsText() string {
	var b strings.Builder
	b.WriteString("A device numbers its own events and may be offline for days: upload late, repeatedly and in any " +
		"order. An acknowledged event is committed to the database together with every notification it causes. " +
		"A repeat is acknowledged again and changes nothing. Codes of rejected events:\n")
	for _, c := range codes {
		b.WriteString("\n" + string(c.Code) + ": " + c.Meaning)
	}
	return b.String()
}

// explained are the texts of the description, by type and JSON name.
var explained = map[reflect.Type]map[string]string{
	reflect.TypeFor[EventUpload](): {
		"sent_at": "The device's clock when the upload leaves it. The server measures the clock's skew by it: the times " +
			"of events are corrected, a skew over 2 minutes is flagged, and over 1 hour nobody is told of the events.",
		"events": "At most 1,000, in any order. An empty list only tells the time.",
	},
	reflect.TypeFor[DeviceEvent](): {
		"seq": "The device's own number of the event: used once, for ever. A repeat is acknowledged again and changes " +
			"nothing; the same number with another content is a conflict.",
		"type": "pass: somebody went through, by card. admitted: staff let somebody in without a card. denied: the door " +
			"refused. sale: a meal or a buffet purchase. reversal: a sale is taken back.",
		"at": "When it happened, by the device's clock (RFC 3339).",
		"card": "pass, denied, sale: the card's identifier, 4 to 10 octets in hexadecimal, or as the reader's profile " +
			"reports it.",
		"companion_card": "pass: the card of the person who brings or collects a kindergarten child.",
		"direction": "pass, admitted, denied: the way through the door. A reader that does not know it says unknown; " +
			"it is then taken from the time of day and marked.",
		"person": "admitted: the registry's id of who was let in.",
		"by":     "admitted: the registry's id of the member of staff.",
		"kind":   "sale: what was sold.",
		"meal": "sale of a hot or subsidised meal: breakfast, second_breakfast, lunch, snack, dinner or second_dinner, " +
			"also in Russian. The city pays no other; a paid hot meal may have a name of its own.",
		"items":  "sale: what the receipt lists. Their sum must be the total.",
		"total":  "sale: roubles and kopecks, above zero.",
		"of":     "reversal: the number of the sale, which may arrive later.",
		"reason": "denied: why, in the device's words.",
	},
	reflect.TypeFor[SaleItem](): {"price": "Of one, in roubles and kopecks."},
	reflect.TypeFor[Acknowledgement](): {
		"acknowledged": "The numbers of events that are stored for good, now or before. The device may forget them.",
		"rejected":     "Events that are kept for staff with the reason. The device need not send them again.",
		"server_time":  "The server's clock, by which a device may set its own.",
	},
	reflect.TypeFor[Question](): {
		"companion_card": "At a door: the card of who collects a kindergarten child.",
		"direction":      "At a door.",
		"kind":           "At a till: what is to be sold.",
	},
	reflect.TypeFor[Decision](): {
		"person":     "Whose card it is; absent when it is nobody's here, or opens nothing.",
		"reason":     "Why not; empty when allowed.",
		"balance":    "At a till: the money that is free to be spent, with what is held for the meal asked about.",
		"limit_left": "At a till: what the buffet may still sell today; absent without a limit.",
		"banned":     "At a till: the items that this person is not to have.",
	},
	reflect.TypeFor[DecidedPerson](): {"photo_url": "Empty: there is no photo."},
	reflect.TypeFor[Changes](): {
		"cursor": "For the next question. An opaque word.",
		"more":   "There is more: ask again at once.",
	},
	reflect.TypeFor[ListedCard](): {
		"card":      "As this device's reader reports it.",
		"person":    "Whose it is; absent for a companion's.",
		"companion": "It is a companion's.",
		"allow":     "It opens doors and pays, until valid_until.",
		"reason":    "Why it does not.",
	},
	reflect.TypeFor[ListedPerson](): {
		"gone":       "Forget this person.",
		"debt_floor": "How deep a hot meal may take the balance.",
		"ordered":    "Meals ordered ahead for today and not served yet. What is held for one is not in the balance, and pays for it.",
		"limit":      "What the buffet may sell on a day; absent without a limit. It holds on the days after, too, while the device is offline.",
		"limit_left": "What the buffet may still sell today; absent without a limit.",
		"bans":       "What the buffet is not to sell.",
		"subsidised": "To tills: the meals of a day that the city pays, each once a day. Not for others' eyes.",
		"served":     "To tills: those of them that were served today.",
	},
}

// explain puts the texts into the schemas.
func (d describer) explain() {
	registry := d.api.OpenAPI().Components.Schemas
	for t, texts := range explained {
		schema := registry.SchemaFromRef(registry.Schema(t, true, "").Ref)
		for name, text := range texts {
			schema.Properties[name].Description = text
		}
	}
}

// describer adds operations to an API.
type describer struct{ api huma.API }

func (d describer) schema(t reflect.Type) *huma.Schema {
	return d.api.OpenAPI().Components.Schemas.Schema(t, true, "")
}

func (d describer) body(t reflect.Type, text string) *huma.RequestBody {
	return &huma.RequestBody{
		Required: true, Description: text,
		Content: map[string]*huma.MediaType{"application/json": {Schema: d.schema(t)}},
	}
}

// route serves an operation and describes its answers.
func (d describer) route(serve http.HandlerFunc, op huma.Operation, answer reflect.Type, text string) {
	op.Tags = []string{"devices"}
	op.Security = []map[string][]string{{keyScheme: {}}}
	op.Responses = map[string]*huma.Response{
		"200": {Description: text, Content: map[string]*huma.MediaType{"application/json": {Schema: d.schema(answer)}}},
	}
	problem := d.schema(reflect.TypeFor[huma.ErrorModel]())
	for status, text := range map[int]string{
		http.StatusUnauthorized:          "The key is unknown or revoked.",
		http.StatusRequestTimeout:        "The body did not arrive in time.",
		http.StatusRequestEntityTooLarge: "The body, or the number of events, is over its limit. Nothing was stored.",
		http.StatusUnsupportedMediaType:  "The body is compressed.",
		http.StatusUnprocessableEntity: "The request is not what is described here; errors[0].location is the path of " +
			"the first mistake. Nothing was stored.",
		http.StatusTooManyRequests:     "Too many requests of this device are under way.",
		http.StatusInternalServerError: "Something is wrong with the server. Nothing is acknowledged: repeat.",
		http.StatusServiceUnavailable:  "The server is busy, stopping or without its database: repeat.",
	} {
		switch status {
		case http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
			if op.RequestBody == nil {
				continue
			}
		}
		response := &huma.Response{
			Description: text,
			Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: problem}},
		}
		if status == http.StatusTooManyRequests || status >= http.StatusInternalServerError {
			response.Headers = map[string]*huma.Param{"Retry-After": {
				Description: "Seconds", Schema: &huma.Schema{Type: huma.TypeInteger},
			}}
		}
		op.Responses[strconv.Itoa(status)] = response
	}
	d.api.OpenAPI().AddOperation(&op)
	d.api.Adapter().Handle(&op, func(ctx huma.Context) {
		r, w := humago.Unwrap(ctx)
		serve(w, r)
	})
}
