/* version.h -- what --version and the handshake say. */
#pragma once

#define AGENT_VERSION "0.1.0"
