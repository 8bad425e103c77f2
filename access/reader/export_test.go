package reader

import "time"

// SetBodyTime shortens how long a body may take, before the first request.
func (in *Intake) SetBodyTime(d time.Duration) { in.bodyTime = d }
