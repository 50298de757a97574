"""Server, worker and services on this machine, and deploying to them or to others."""
