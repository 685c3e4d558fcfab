"""A fleet of hosts over a year, in virtual time: what moves do to the clocks of its guests."""
