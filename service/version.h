/* version.h -- of the service. */
#pragma once

#define PTYCAST_VERSION "0.1.0"
