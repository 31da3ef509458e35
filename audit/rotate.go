package audit

// CheckpointOrigin returns the origin that a checkpoint names, unverified. The
// error is [ErrFormat].
func CheckpointOrigin(checkpoint []byte) (string, error) {
	c, err := unverifiedCheckpoint(checkpoint)
	return c.Origin, err
}
