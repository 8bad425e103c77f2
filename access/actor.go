package access

import "strconv"

// ActorKind says in what capacity somebody acts.
type ActorKind string

// The capacities.
const (
	RepresentativeActor ActorKind = "representative"
	StaffActor          ActorKind = "staff"    // of the organisation, by the code of the tablet's user
	RegistryActor       ActorKind = "registry" // an import
	SystemActor         ActorKind = "system"   // a job of ours
	PartnerActor        ActorKind = "partner"  // a bank
)

// Actor is who did something or looked at something: ids, never names.
type Actor struct {
	Kind ActorKind
	ID   string
}

// ByRepresentative is a representative who acts for himself.
func ByRepresentative(id RepresentativeID) Actor {
	return Actor{RepresentativeActor, strconv.FormatInt(int64(id), 10)}
}

// ByStaff is a member of staff, by the code the organisation's system gives.
func ByStaff(code string) Actor { return Actor{StaffActor, code} }

// ByPartner is a bank, by its name.
func ByPartner(name string) Actor { return Actor{PartnerActor, name} }

// BySystem is a job of ours, by its kind.
func BySystem(job string) Actor { return Actor{SystemActor, job} }

// byRegistry is an import of the registry's files.
var byRegistry = Actor{RegistryActor, "import"}

// String writes the actor as "staff:staff-3".
func (a Actor) String() string { return string(a.Kind) + ":" + a.ID }
