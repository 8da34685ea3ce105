"""From labelled light curves to a sealed bundle and an honest report. Serving never imports this."""
