"""The embedded rendezvous server: an MQTT broker and a STUN responder in one process."""
